"""Files that appear whole or not at all."""

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import re
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import yaml

from ds_trainer.errors import WriteError

_JSON_LOCK = threading.Lock()
"""Where a run fails, two threads of a process may say so in the same file, which both would write by one name."""


def aside_of(path: Path) -> Path:
    """Where this process writes at first what is to be `path`.

    On another host of a shared file system, or in another container, a process may have the same number.
    """
    return path.parent / f".{path.name}.{socket.gethostname()}.{os.getpid()}"  # also of ".", which has no name


def remove_asides(folder: Path) -> None:
    """Delete what processes that were killed, on any host, have left half written in a folder."""
    for path in folder.glob(".*"):
        if re.fullmatch(r"\..+\.[0-9]+", path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Let `write` fill a file beside `path`, bring it to disk and rename it: readers see the old file or the new.

    Raises:
        WriteError: the disk is full, read-only or gone; `path` is as it was.
    """
    aside = aside_of(path)
    try:
        aside.unlink(missing_ok=True)  # of a process of this number that was killed
        with aside.open("xb") as file:  # and through no link that another user put there
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        sync(path.parent)
    except (OSError, RuntimeError) as error:
        raise WriteError.of(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def open_no_link(path: Path, mode: Literal["rb", "r+b", "wb", "ab"]) -> IO[bytes]:
    """Open what is written in place. A folder from elsewhere may hold a link there, to any file of the user's.

    Raises:
        OSError: it is a link, or cannot be opened; a pipe is not waited for.
    """
    return open(path, mode, opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666))


def lock(file: IO[bytes]) -> bool:
    """Lock a file for as long as it is open in any process; False: it is locked. True on a file system without locks.

    Raises:
        OSError: NFS locks for writing alone, and the file is open for reading.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno == errno.EBADF:
            raise
    return True


def finite(value: Any) -> Any:
    """`value` with null in place of NaN and infinity, which JSON does not know, however deep they stand."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where there is none.

    Raises:
        WriteError: something else has its name, or it cannot be made there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError.of(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8, atomically. A byte in a file's name that is none stands there as `\\udce9`, which JSON knows."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON, atomically; NaN and infinity as null."""
    text = json.dumps(finite(value), indent=2, ensure_ascii=False, default=str, allow_nan=False) + "\n"
    with _JSON_LOCK:
        write_text(path, text)


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` as YAML, atomically."""
    write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write a table for people and programs, atomically."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_text(path, text.getvalue())


def sync(path: Path) -> None:
    """Bring a file, or the names in a directory, to disk: after a rename they are otherwise lost with the power.

    Some file systems of virtual machines do not know how for directories, and say that it is invalid.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
