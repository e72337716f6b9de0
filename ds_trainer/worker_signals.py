"""Signals that ask a run to stop reach the processes that fetch its data as well, and must not end them.

Ctrl-C goes to every process of a terminal's job, and so do the signals of Slurm and of DeepSpeed's launcher.
"""

import os
import signal
import threading


def heed_the_parent_alone(worker: int) -> None:
    """Leave SIGINT and SIGUSR1 to the training process, and SIGTERM unless it comes from there.

    Torch ends a worker by SIGTERM where training raised, or where it hangs, and the end of the training process would
    wait for one that ignores it (seen with torch 2.13.0). A worker whose parent is gone ends by itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_the_parent, name="signals", daemon=True).start()


def _end_with_the_parent() -> None:
    parent = os.getppid()
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)  # as torch's own way of taking a SIGTERM of the parent does
