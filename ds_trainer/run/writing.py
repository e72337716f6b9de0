"""Writes big files beside training, so that a step waits for a copy off the device and not for a disk."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from ds_trainer.errors import WriteError
from ds_trainer.progress import log

KINDS = ("best.pth", "resume point")
"""What is written, in the order in which what waits is: a resume point counts on the best checkpoint."""


class Writer:
    """One thread that writes what it is given; of several `KINDS` that wait, the first.

    A write that fails is told, kept, and tried again before anything after it: a resume point never gets to disk
    before the best checkpoint that it counts on. A newer file of the same kind takes the place of one that failed.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Callable[[], None]] = {}
        self._problems: dict[str, WriteError] = {}
        self._lock = Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._last: Future[None] | None = None

    def write(self, kind: str, write: Callable[[], None]) -> None:
        """Have `write` called soon. Waits only where the one before of this kind is still being written."""
        if kind in self._waiting:
            self._wait()
        with self._lock:
            self._waiting[kind] = write
        self._last = self._thread.submit(self._drain)

    def finish(self) -> list[str]:
        """Wait for everything; return what could not be written and why."""
        if self._last is not None:
            self._wait()
            self._drain()  # once more: there may be room by now
        problems = [problem for error in self._problems.values() for problem in error.problems]
        held_back = [kind for kind in self._waiting if kind not in self._problems]
        if held_back:
            problems[-1] += f"; the {' and '.join(held_back)} after it could not be written either"
        return problems

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()  # raises what is no matter of the disk

    def _drain(self) -> None:
        while self._waiting:
            with self._lock:
                kind = min(self._waiting, key=KINDS.index)
                write = self._waiting[kind]
            try:
                write()
            except WriteError as error:
                self._tell(kind, error)
                return
            with self._lock:
                if self._waiting[kind] is write:
                    del self._waiting[kind]
            if self._problems.pop(kind, None) is not None:
                log.warning(f"{kind}: written again")

    def _tell(self, kind: str, error: WriteError) -> None:
        if kind not in self._problems:
            log.warning(f"{kind} not written: {error}; training goes on, and it is tried again before anything else")
        self._problems[kind] = error
