"""The record of a run: metrics.jsonl, one line an epoch and one every few steps."""

import contextlib
import json
import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

from ds_trainer.errors import WriteError
from ds_trainer.files import finite, sync, write_atomically
from ds_trainer.progress import log
from ds_trainer.text_file import check_regular

Record = dict[str, Any]


def _record(line: bytes) -> Record | None:
    with contextlib.suppress(ValueError, RecursionError):
        record = finite(json.loads(line))  # versions before this one wrote NaN where values lie deeper
        return record if isinstance(record, dict) and "kind" in record else None
    return None


def _lines(records: list[Record]) -> bytes:
    return "".join(json.dumps(record, allow_nan=False) + "\n" for record in records).encode()


def _write_all(file: FileIO, content: bytes) -> None:
    while content:
        content = content[file.write(content) :]  # a disk that is nearly full takes a part, and fails at the next


class Records:
    """Appends to a file of JSON lines. What cannot be written is kept, and written before the next line.

    Attributes:
        pass_on: called with each record that is appended.
    """

    def __init__(self, path: Path):
        self.path = path
        self.pass_on: Callable[[Record], None] = lambda record: None
        self.unwritten: list[Record] = []

    def append(self, **record: Any) -> None:
        """Write a record, and those before it that could not be written; NaN and infinity, unknown to JSON, as null."""
        self.pass_on(record)
        was_well = not self.unwritten
        self.unwritten.append(finite(record))
        problems = self.flush()
        if problems and was_well:
            log.warning(f"{problems[0]}; training goes on, and its record is kept in memory")

    def flush(self) -> list[str]:
        """Write what is not written yet; return why that was not possible."""
        if not self.unwritten:
            return []
        lines = _lines(self.unwritten)
        try:
            # Unbuffered: a buffer keeps what did not fit, and would write that half line when it is closed.
            with self.path.open("ab", buffering=0) as file:
                end = file.tell()
                try:
                    _write_all(file, lines)
                except OSError:
                    with contextlib.suppress(OSError):
                        os.truncate(self.path, end)  # half a line would spoil the next one
                    raise
        except OSError as error:
            return WriteError.of(self.path, error).problems
        self.unwritten.clear()
        return []

    def sync(self) -> None:
        """Bring what is written to disk.

        Raises:
            WriteError: the disk does not take it.
        """
        try:
            if self.path.exists():
                sync(self.path)
        except OSError as error:
            raise WriteError.of(self.path, error) from error

    def load(self) -> list[Record]:
        """All records but damaged ones, such as a last line that was cut off.

        Raises:
            ValueError: it is no regular file: a pipe would be waited for, a device may never end.
        """
        lines = []
        if self.path.exists():
            check_regular(self.path)
            lines = self.path.read_bytes().split(b"\n")[:-1]
        return [record for record in map(_record, lines) if record is not None] + self.unwritten

    def keep(self, is_kept: Callable[[Record], bool], unwritten: list[Record]) -> None:
        """Go back to the records that `is_kept` says, with those that a resume point kept for the file."""
        kept = [record for record in self.load() if is_kept(record)]
        kept += [record for record in map(finite, unwritten) if record not in kept]
        self.unwritten.clear()
        write_atomically(self.path, lambda file: file.write(_lines(kept)))
