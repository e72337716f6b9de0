"""The formats that clips are read from: one module each, found by what the file or folder contains.

A new format is a module with the names of `Reader`, listed in `READERS`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.clips import ClipSource
from ds_trainer.tasks.sign.extraction.footage import footage_below
from ds_trainer.tasks.sign.readers import clip_table, karsl_npz, karsl_packed, packed_npz, sign_folders


class Reader(Protocol):
    """What a module that reads a format has.

    `FORMAT` is what a path must be, for messages. `VERSION` rises when the same files would give other clips.
    """

    @property
    def FORMAT(self) -> str: ...

    @property
    def VERSION(self) -> int: ...

    def recognises(self, path: Path) -> bool:
        """Whether `path` looks like this format, sound or damaged."""
        ...

    def files(self, path: Path) -> list[Path]:
        """All files that `read` depends on."""
        ...

    def read(self, path: Path) -> ClipSource:
        """The clips at `path`; raises `DataError` where no clip at all can be read."""
        ...


READERS: Sequence[Reader] = (karsl_npz, karsl_packed, packed_npz, clip_table, sign_folders)


def find_reader(path: Path) -> Reader:
    """The reader that recognises the file or folder `path`.

    Raises:
        DataError: none does.
    """
    for reader in READERS:
        if reader.recognises(path):
            return reader
    if any(footage_below(path)):
        remedy = (
            f"python launch/extract_keypoints.py {path} --out keypoints finds them, and --data keypoints takes those"
        )
        raise DataError(f"{path}: found footage and no keypoints; {remedy}")
    formats = "; ".join(reader.FORMAT for reader in READERS)
    raise DataError(f"{path}: found no format of clips that is known, expected one of: {formats}; or a clip store")
