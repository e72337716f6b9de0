"""The formats that clips are read from: one module each, found by what the file or folder contains.

A new format is a module with the names of `Reader`, listed in `READERS`.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

from ds_trainer.errors import DataError
from ds_trainer.problems import legible
from ds_trainer.tasks.sign.clips import ClipSource, data_flag
from ds_trainer.tasks.sign.extraction.footage import extraction_of, footage_below
from ds_trainer.tasks.sign.readers import clip_table, karsl_npz, karsl_packed, openpose, packed_npz, sign_folders


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

_SEEN_AT_ONCE: Sequence[Reader] = (karsl_npz, karsl_packed, clip_table)
"""Those whose folders are told by what lies right in them: any folder at all has files of clips somewhere below it."""

_MOST_LOOKED_AT = 1000


def find_reader(path: Path) -> Reader:
    """The reader that recognises the file or folder `path`.

    Raises:
        DataError: none does.
    """
    for reader in READERS:
        if reader.recognises(path):
            return reader
    if openpose.is_openpose(path):
        raise DataError(
            f"{path}: found one clip of OpenPose's, expected {{sign}}/{{clip}}; give the folder above its sign"
        )
    if any(footage_below(path)):
        remedy = f"{extraction_of(path)} finds them, and --data keypoints takes those"
        raise DataError(f"{path}: found footage and no keypoints; {remedy}")
    if path.is_file() and any(reader.recognises(path.parent) for reader in _SEEN_AT_ONCE):
        raise DataError(
            f"{path}: found one file of several that are read together; did you mean {data_flag(path.parent)}?"
        )
    formats = "; ".join(reader.FORMAT for reader in READERS)
    raise DataError(f"{path}: {_content_of(path)}, expected one of: {formats}; or a clip store")


def _content_of(path: Path) -> str:
    """What is found at a path that no reader recognises."""
    if not path.is_dir():
        return f"found a file of {_kind_of(path)}"
    below = [*islice(path.rglob("*"), _MOST_LOOKED_AT)]
    kinds = Counter(_kind_of(file) for file in below if not file.is_dir())
    if not below:
        return "the folder is empty"
    return f"found files of {', '.join(kind for kind, _ in kinds.most_common(5))}" if kinds else "found only folders"


def _kind_of(file: Path) -> str:
    return legible(file.suffix or file.name)
