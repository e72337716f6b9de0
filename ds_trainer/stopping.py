"""Requests to stop a run before its end: signals and a time limit. They are looked at between steps."""

import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ds_trainer.launcher_watch import LauncherWatch

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

WantsStop = Callable[[], str | None]
Take = Callable[[int, FrameType | None], None]


class StopRequested(Exception):
    """The run stopped at a resume point because it was asked to; the message says by whom."""


def hold_sigusr1_back() -> None:
    """Have SIGUSR1 wait for `early_requests`: what training imports takes seconds, and the signal would end it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})


def interrupt_once() -> None:
    """Have the first of these signals interrupt the process as Ctrl-C does, and those after it do nothing.

    For a command that then ends others: `timeout` asks it twice at once, and a second interruption would leave those
    that it has not come to. A job in the background that ignores SIGINT goes on to do so.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in taken:
            signal.signal(each, lambda number, frame: None)  # not SIG_IGN, which what is started just now would inherit
        raise KeyboardInterrupt

    taken = [number for number in _SIGNALS if number != signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
    for number in taken:
        signal.signal(number, interrupt)


@contextmanager
def early_requests() -> Iterator[WantsStop]:
    """While it is open, SIGUSR1 is noted instead of ending the process, and so is the end of its launcher.

    For the time before `stop_requests`: a batch system sends SIGUSR1 to have a job saved and queued again, which one
    that ends while it starts is not. SIGTERM and SIGINT end that one, since nothing is lost. Gives a function as
    `stop_requests` does.
    """
    noted: list[str] = []
    launcher = LauncherWatch()

    def wants_stop() -> str | None:
        if noted:
            return noted[0]
        return f"the end of its launcher on {socket.gethostname()}" if launcher.has_ended() else None

    with _taken((signal.SIGUSR1,), lambda number, frame: noted.append(signal.Signals(number).name)):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        yield wants_stop


@contextmanager
def stop_requests(stop_after_minutes: float = 0.0, asked_early: WantsStop = lambda: None) -> Iterator[WantsStop]:
    """While it is open, SIGTERM, SIGINT and SIGUSR1 are noted instead of ending the process.

    Gives a function that tells why the run should stop, or None. A second SIGINT ends the process at once; in an
    interactive session it does what it did before. Only a main thread gets signals.

    Args:
        stop_after_minutes: the time limit, counted from here; 0: none.
        asked_early: what `early_requests` gave.
    """
    noted: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(signal.Signals(number).name)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, before[signal.SIGINT] if hasattr(sys, "ps1") else signal.SIG_DFL)

    deadline = time.monotonic() + 60 * stop_after_minutes

    def wants_stop() -> str | None:
        if noted:
            return noted[0]
        is_over = stop_after_minutes > 0 and time.monotonic() >= deadline
        return asked_early() or (f"the time limit of {stop_after_minutes:g} minutes" if is_over else None)

    with _taken(_SIGNALS, note) as before:
        yield wants_stop


@contextmanager
def _taken(signals: Sequence[signal.Signals], take: Take) -> Iterator[dict[signal.Signals, Any]]:
    """While it is open, `take` gets these signals. Gives what got them before."""
    is_told = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, take) for number in signals if is_told}
    try:
        yield before
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
