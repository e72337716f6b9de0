"""Ends this process for good, though its main thread, a pipe or a disk may be stuck."""

import os
import sys
import threading
from collections.abc import Callable

_SPEAKING_S = 10.0
_FLUSHING_S = 1.0


def within(seconds: float, act: Callable[[], None]) -> None:
    """Do something that may block, but wait no longer than so many seconds."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(seconds)


def end_process(status: int) -> None:
    """End now, whatever the other threads do; what was printed is kept."""
    within(_FLUSHING_S, _flush)
    os._exit(status)


def end_later(seconds: float, speak: Callable[[], None], status: int) -> threading.Timer:
    """Unless the process has ended by itself in so many seconds, or cancels this, call `speak` and end it."""

    def end() -> None:
        within(_SPEAKING_S, speak)
        end_process(status)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    return timer


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
