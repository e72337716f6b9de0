"""Signals that ask a run to stop reach the processes that fetch its data as well, and must not end them.

Ctrl-C goes to every process of a terminal's job, and so do the signals of Slurm and of DeepSpeed's launcher.
"""

import multiprocessing
import os
import signal
import threading
import time

_CHECKED_EVERY_S = 5


def end_with_the_parent() -> None:
    """End this process soon after the one that started it was killed, which nothing else tells an idle one of a pool.

    To be called in a process of `multiprocessing` that no fork server started.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "not a process that another started"
    threading.Thread(target=_end_with, args=(parent.pid,), name="parent", daemon=True).start()


def heed_the_parent_alone(worker: int) -> None:
    """Leave SIGINT and SIGUSR1 to the training process, and SIGTERM unless it comes from there; end with it.

    Torch ends a worker by SIGTERM where training raised, or where it hangs, and the end of the training process would
    wait for one that ignores it. A worker whose parent was killed while it started would wait for work for good (both
    seen with torch 2.13.0).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "sigtimedwait"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    end_with_the_parent()


def _end_with(parent: int) -> None:
    while os.getppid() == parent and not _asked_to_end_by(parent):
        pass
    os._exit(0)  # as torch's own way of taking a SIGTERM of the parent does


def _asked_to_end_by(parent: int) -> bool:
    if not hasattr(signal, "sigtimedwait"):
        time.sleep(_CHECKED_EVERY_S)
        return False
    request = signal.sigtimedwait({signal.SIGTERM}, _CHECKED_EVERY_S)
    return request is not None and request.si_pid == parent
