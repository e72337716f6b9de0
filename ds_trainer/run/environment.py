"""What a run ran on, so that its result can be explained later: versions, commit, hardware, command line."""

import contextlib
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
from pydantic import BaseModel

from ds_trainer import __version__
from ds_trainer.distributed import gathered, world_size
from ds_trainer.problems import exact
from ds_trainer.run.reading import read_json

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
        git("ls-files", "--error-unmatch", Path(__file__).name)  # or the repository is that of who installed it
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _devices() -> dict[str, Any]:
    if torch.cuda.is_available():
        return {"type": "cuda", "name": torch.cuda.get_device_name(), "on_this_node": torch.cuda.device_count()}
    return {"type": "cpu", "name": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}


class SavedEnvironment(BaseModel):
    """What environment.json of a run says that matters where something of the run is run again."""

    class _Devices(BaseModel):
        type: str

    data_fingerprint: str
    working_dir: str
    devices: _Devices
    versions: dict[str, str]


def load_environment(path: Path) -> SavedEnvironment | None:
    """The environment of the run that `path` is or lies in; None if that is not told, as of a lone copy."""
    whole = path.resolve()
    for folder in (whole, *whole.parents[:2]):  # RUN/best.pth, RUN/bad_batches/step_00000123
        with contextlib.suppress(OSError, ValueError):
            # Not by pydantic's parser, which refuses what stands for a name of a folder that is no UTF-8.
            return SavedEnvironment.model_validate(read_json(folder / "environment.json"))
    return None


def elsewhere(environment: SavedEnvironment | None, what: str) -> list[str]:
    """A remedy where relative paths may mean something else than in training.

    Args:
        what: is started now, such as "replay".
    """
    if environment is None or environment.working_dir == str(Path.cwd()):
        return []
    return [f"the run was started in {exact(environment.working_dir)}; start the {what} there too"]
