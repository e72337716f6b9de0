"""What a run ran on, so that its result can be explained later: versions, commit, hardware, command line."""

import importlib.metadata
import os
import platform
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from ds_trainer import __version__
from ds_trainer.distributed import gathered, world_size

_PACKAGES = ("torch", "deepspeed", "numpy")


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version(), "ds_trainer": __version__}
    return found | {package: importlib.metadata.version(package) for package in _PACKAGES}


def describe_environment(data_fingerprint: str) -> dict[str, Any]:
    """The content of environment.json, on the master's node. Collective."""
    return {
        "command": shlex.join([sys.executable, *sys.argv]),
        "working_dir": str(Path.cwd()),
        "commit": _commit(),
        "versions": versions(),
        "host": socket.gethostname(),
        "world_size": world_size(),
        "hosts": sorted(set(gathered(socket.gethostname()))),
        "devices": _devices(),
        "data_fingerprint": data_fingerprint,
    }


def _commit() -> str | None:
    """The commit of the source tree, with `+changes` where files differ from it; None outside a git checkout."""
    source_dir = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source_dir), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git(
            "ls-files", "--error-unmatch", Path(__file__).name
        )  # or the repository is that of somebody who installed it
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _devices() -> dict[str, Any]:
    if torch.cuda.is_available():
        return {"type": "cuda", "name": torch.cuda.get_device_name(), "on_this_node": torch.cuda.device_count()}
    return {"type": "cpu", "name": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
