"""Whether what started this rank has ended: a rank that trains on without it is one that nobody sees and stops."""

import contextlib
import functools
import os
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from ds_trainer.rank_variables import has_launcher

RUNNERS = ("deepspeed", "ds", "deepspeed.launcher.runner")

_EVERY_S = 1.0


@functools.cache
def launcher_of(this_process: int) -> tuple[int, tuple[psutil.Process, psutil.Process] | None]:
    """The number of this process's parent, and DeepSpeed's above it, as they were when this was first asked.

    To be asked before the imports of training, which take seconds: of a launcher that ended meanwhile nothing is left.
    """
    assert this_process == os.getpid()
    parent = os.getppid()
    return parent, _launch_and_runner(parent)


class LauncherWatch:
    """Knows the launcher from when it is made, or `launcher_of` was asked.

    `torchrun` and those of Slurm and MPI are the parents of their ranks. DeepSpeed's is launch.py, and on a host where
    `deepspeed` was called and did not go over the network, that is a child of the runner, as which `deepspeed` runs.
    SIGTERM then ends the runner alone (seen with deepspeed 0.19.8). What else is above launch.py, such as a shell or
    sshd, may end.
    """

    def __init__(self) -> None:
        self._has_launcher = has_launcher()  # a shell script that started this process may end
        self._parent, above = launcher_of(os.getpid())
        self._above = above if self._has_launcher else None
        self._looked_at_s = time.monotonic()

    def has_ended(self) -> bool:
        """Whether the launcher has ended; cheap enough to ask between steps."""
        if self._has_launcher and os.getppid() != self._parent:  # it stays with its ranks, unless it is killed
            return True
        if self._above is None or time.monotonic() < self._looked_at_s + _EVERY_S:
            return False
        launch, runner = self._above
        with contextlib.suppress(psutil.Error):
            if launch.ppid() != runner.pid:
                return True
        self._looked_at_s = time.monotonic()
        return False


def _launch_and_runner(parent: int) -> tuple[psutil.Process, psutil.Process] | None:
    """This process's parent and that one's, if they are DeepSpeed's."""
    with contextlib.suppress(psutil.Error):
        launch = psutil.Process(parent)
        runner = launch.parent()
        if runner is not None and "deepspeed.launcher.launch" in launch.cmdline() and is_runner(runner.cmdline()):
            return launch, runner
    return None


def is_runner(words: Sequence[str]) -> bool:
    """Whether this command line is that of `deepspeed`, a script of Python; not of what has only a word of it."""
    program, *others = [*words, ""]
    script = next((word for word in others if not word.startswith("-")), "")
    return Path(program).name.startswith("python") and Path(script).name in RUNNERS
