"""Who compiles an operation of DeepSpeed's, of several processes that want it: locked so that no killed one keeps it.

Torch makes a file, and waits in silence until it is gone: for good, where a process was killed within the minutes that
it compiled (seen with torch 2.13.0).
"""

import contextlib
import fcntl
import os
from typing import Any

from torch.utils.file_baton import FileBaton

from ds_trainer.engine.skipping import replaced

_try_by_file, _wait_by_file = FileBaton.try_acquire, FileBaton.wait


def no_lock_outlives_its_process() -> contextlib.AbstractContextManager[None]:
    """Within, torch's locks are the system's, which end with the process that holds them; its own files are ignored.

    On a file system without locks they are torch's still.
    """
    return replaced(FileBaton, {"try_acquire": _try_acquire, "wait": _wait, "release": _release})


def _try_acquire(baton: Any) -> bool:
    baton.fd = _opened(baton)
    try:
        fcntl.flock(baton.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(baton.fd)
        return False
    except OSError:
        os.close(baton.fd)
        return bool(_try_by_file(baton))
    return True


def _wait(baton: Any) -> None:
    descriptor = _opened(baton)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        _wait_by_file(baton)
    finally:
        os.close(descriptor)


def _release(baton: Any) -> None:
    os.close(baton.fd)
    with contextlib.suppress(FileNotFoundError):
        os.remove(baton.lock_file_path)


def _opened(baton: Any) -> int:
    return os.open(f"{baton.lock_file_path}.held", os.O_CREAT | os.O_RDWR, 0o666)
