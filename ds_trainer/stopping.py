"""Requests to stop a run before its end: signals and a time limit. They are looked at between steps."""

import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ds_trainer.launcher_watch import LauncherWatch

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

WantsStop = Callable[[], str | None]


class StopRequested(Exception):
    """The run stopped at a resume point because it was asked to; the message says by whom."""


@contextmanager
def stop_requests(stop_after_minutes: float = 0.0) -> Iterator[WantsStop]:
    """While it is open, SIGTERM, SIGINT and SIGUSR1 are noted instead of ending the process.

    Gives a function that tells why the run should stop, or None. A second SIGINT ends the process at once; in an
    interactive session it does what it did before. Only a main thread gets signals.

    Args:
        stop_after_minutes: the time limit, counted from here; 0: none.
    """
    noted: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(signal.Signals(number).name)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, before[signal.SIGINT] if hasattr(sys, "ps1") else signal.SIG_DFL)

    deadline = time.monotonic() + 60 * stop_after_minutes
    launcher = LauncherWatch()

    def wants_stop() -> str | None:
        if noted:
            return noted[0]
        if launcher.has_ended():
            return f"the end of its launcher on {socket.gethostname()}"
        is_over = stop_after_minutes > 0 and time.monotonic() >= deadline
        return f"the time limit of {stop_after_minutes:g} minutes" if is_over else None

    is_told = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, note) for number in _SIGNALS if is_told}
    try:
        yield wants_stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
