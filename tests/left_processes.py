"""Ends what a failed test leaves running: it takes cores, and warnings of what it had open fail the tests after it."""

import contextlib
import subprocess
import weakref
from collections.abc import Iterator
from unittest import mock

import psutil


@contextlib.contextmanager
def started_processes() -> Iterator["weakref.WeakSet[subprocess.Popen[bytes]]"]:
    """Those that are started within."""
    started: weakref.WeakSet[subprocess.Popen[bytes]] = weakref.WeakSet()
    start = subprocess.Popen.__init__

    def start_and_note(self: subprocess.Popen[bytes], *how: object, **more: object) -> None:
        start(self, *how, **more)  # type: ignore[call-overload]
        started.add(self)

    with mock.patch.object(subprocess.Popen, "__init__", start_and_note):
        yield started


def end_left(processes: "weakref.WeakSet[subprocess.Popen[bytes]]") -> None:
    """End these, and what they have started."""
    for process in list(processes):
        if process.returncode is None:
            with contextlib.suppress(psutil.Error):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):  # of a pipe that nobody reads
                    stream.close()
