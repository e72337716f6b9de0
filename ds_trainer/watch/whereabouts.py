"""Where this rank stands: phase, epoch, step, and the stack of its main thread.

Kept for the whole process, as a process is at one place: the code that moves on says so with `stand_at`, and the watch
(`watch.py`) tells the other ranks. Each call counts as progress and costs 3 microseconds: nothing is synchronised.
"""

import gc
import os
import sys
import threading
import traceback
from dataclasses import dataclass
from types import FrameType

import ds_trainer

_REPEATED = ("fetching", "training", "validating")
"""Phases that come again within a step: how long one lasts is known after the first."""
_PACKAGE = os.path.join(os.path.dirname(ds_trainer.__file__), "")
_NUM_INNERMOST, _NUM_OWN = 8, 3
_COLLECTIVES = os.path.join(_PACKAGE, "distributed.py")

Stack = list[tuple[str, int, str]]
"""File, line and function of each frame, the innermost last."""


@dataclass(frozen=True)
class Place:
    """Where a rank stands.

    Args:
        phase: what it does.
        epoch: counted from 1, as the log shows it; None before the first.
        step: the step that is being taken, counted from 1 over all epochs.
        progress: how often the rank has moved on since it started.
        is_in_stride: it has done what it does now before, so that the next is due soon; the first step may compile for
            minutes.
    """

    phase: str = "starting"
    epoch: int | None = None
    step: int | None = None
    progress: int = 0
    is_in_stride: bool = False

    def __str__(self) -> str:
        numbers = (("epoch", self.epoch), ("step", self.step))
        return ", ".join([self.phase, *(f"{name} {number}" for name, number in numbers if number is not None)])


class _Whereabouts:
    def __init__(self) -> None:
        self.place = Place()
        self._first: dict[str, int] = {}

    def move(self, phase: str, epoch: int | None, step: int | None) -> None:
        """The place is replaced as a whole, so that other threads see the old one or the new one."""
        before = self.place
        progress = before.progress + 1
        count = progress if step is None else step
        self.place = Place(
            phase,
            before.epoch if epoch is None else epoch,
            before.step if step is None else step,
            progress,
            is_in_stride=phase in _REPEATED and self._first.setdefault(phase, count) != count,
        )


_here = _Whereabouts()


def stand_at(phase: str, epoch: int | None = None, step: int | None = None) -> None:
    """Say that this rank has moved on.

    Args:
        phase: what it does from here on, as a reader of a message will understand it: "training", "saving".
        epoch: counted from 1; None if it is still the same.
        step: the step to be taken, counted from 1; None if it is still the same.
    """
    _here.move(phase, epoch, step)


def start_anew() -> None:
    """Forget where the process has stood: what one training has done before is not in stride in the next."""
    global _here
    _here = _Whereabouts()


def place() -> Place:
    """Where this rank stands now."""
    return _here.place


def main_stack() -> Stack:
    """The frames of the main thread, whatever it waits for; no file is read.

    No garbage is collected meanwhile: CPython 3.11 would do so within `f_back`, and should a finalizer let the main
    thread go on and leave that frame, what is read is no frame any more, and the process crashes (seen with 3.11.7).
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        frame: FrameType | None = sys._current_frames().get(threading.main_thread().ident or 0)
        stack: Stack = []
        while frame is not None:
            stack.append((frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_name))
            frame = frame.f_back
        return _telling(stack[::-1])
    finally:
        if collects:
            gc.enable()


def stack_of(error: BaseException) -> Stack:
    """The frames through which `error` was raised."""
    frames = traceback.walk_tb(error.__traceback__)
    return _telling([(frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in frames])


def _telling(stack: Stack) -> Stack:
    """The innermost frames, and where in this package those outside were called from."""
    stack = [frame for frame in stack if not frame[0].startswith("<frozen importlib")]
    own = [number for number, frame in enumerate(stack) if frame[0].startswith(_PACKAGE)]
    kept = {*own[-_NUM_OWN:], *range(len(stack))[-_NUM_INNERMOST:]}
    return [stack[number] for number in sorted(kept)]


def waits_for_others(stack: Stack) -> bool:
    """Whether the innermost frame of `stack` is one that communicates."""
    file = stack[-1][0] if stack else ""
    return file == _COLLECTIVES or any(folder in file for folder in ("/torch/distributed/", "/deepspeed/comm/"))
