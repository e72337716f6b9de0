"""A run directory is one job's at a time: two that continue the same run would write over each other."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from ds_trainer.distributed import agreed
from ds_trainer.errors import SettingsError, WriteError
from ds_trainer.files import lock, open_no_link

Claim = Callable[[Path], None]

_PATIENCE_S = 20.0
"""For a job that was just killed: the workers of its data loaders notice after a few seconds."""


@contextlib.contextmanager
def claims() -> Iterator[Claim]:
    """While it is open, this job has those run directories to itself that it claims; also should its process be killed.

    Gives a function that claims one. Collective.

    Raises:
        SettingsError: by that function, on every rank: another job has the directory.
        WriteError: likewise: nothing can be made there.
    """
    with contextlib.ExitStack() as held:

        def claim(run_dir: Path) -> None:
            agreed(lambda: _lock(run_dir, held))

        yield claim


def _lock(run_dir: Path, held: contextlib.ExitStack) -> None:
    path = run_dir / ".lock"
    try:
        with contextlib.suppress(FileExistsError):
            path.open("xb").close()
        # For reading, so that the disk may become read-only.
        file: IO[bytes] = held.enter_context(open_no_link(path, "rb"))
    except OSError as error:
        raise WriteError.of(path, error) from error
    give_up_s = time.monotonic() + _PATIENCE_S
    while not _is_ours(file):
        if time.monotonic() >= give_up_s:
            holder = file.read(200).decode(errors="replace")
            raise SettingsError(
                f"{run_dir}: another job trains there ({holder}), expected none; wait for its end or end it, or start "
                "afresh with --resume never"
            )
        time.sleep(0.2)
        if file.closed:  # NFS locks for writing alone
            file = held.enter_context(open_no_link(path, "r+b"))
    with contextlib.suppress(OSError), open_no_link(path, "wb") as told:  # on a full disk nobody is told whose it is
        told.write(f"process {os.getpid()} on {socket.gethostname()}".encode())


def _is_ours(file: IO[bytes]) -> bool:
    """Whether the file is locked by now; it is closed where it would have to be open for writing."""
    try:
        return lock(file)
    except OSError:
        file.close()
        return False
