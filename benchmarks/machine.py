"""What was measured on: a name for the results, and all that explains them later."""

import datetime
import importlib.metadata
import os
import platform
import re
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ds_trainer.run.environment import describe_environment

_PEERS = ("accelerate", "matplotlib")


def processor() -> str:
    """The GPU, or the CPU, as it calls itself."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def results_name(now: datetime.datetime) -> str:
    """Machine, then date: results of a machine stand together."""
    kind = re.sub(r"[^a-z0-9.]+", "_", processor().lower()).strip("_")
    return f"{kind}-{os.cpu_count()}_cores-{now:%Y-%m-%d_%H-%M-%S}"


def describe_machine() -> dict[str, Any]:
    """Command, commit, versions, hardware, and what else runs here."""
    environment = describe_environment("")
    for name in ("data_fingerprint", "world_size", "working_dir"):
        environment.pop(name, None)
    versions = dict(environment["versions"])
    for package in _PEERS:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        **environment,
        "command": " ".join(["python -m benchmarks", *map(shlex.quote, sys.argv[1:])]),
        "versions": versions,
        "processor": processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "has_bf16_instructions": _has_bf16_instructions(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }


def load_average() -> list[float]:
    """Processes that ran or waited for a core in the last 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()]


def _has_bf16_instructions() -> bool | None:
    """None where Linux does not say."""
    with suppress(OSError):
        return bool(re.search(r"\b(avx512_bf16|amx_bf16|asimd.*bf16)\b", Path("/proc/cpuinfo").read_text()))
    return None
