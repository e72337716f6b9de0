"""Reading .npz and .npy files of unknown origin: no pickle is ever run, and damage gets one clear line.

Not with `numpy.load`: it takes an array whose header was damaged for a shorter one, and a checksum is verified only
where a member of the archive is read to its end.
"""

import io
import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ds_trainer.errors import DataError, UserError
from ds_trainer.problems import reason_of
from ds_trainer.text_file import check_regular

_HARMLESS_BYTES = 2**28
_MAX_RATIO = 100
"""Recordings shrink to a half at best; what shrinks to less than a hundredth was made to fill memory or disk."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What numpy writes. Of others `zipfile` (3.11) unpacks all there is before it looks at the size that is announced."""


class _PickledObjects(Exception):
    """The file would have to be unpickled."""


@contextmanager
def reading(file: Path, kind: str = ".npz or .npy") -> Iterator[None]:
    """Turns what goes wrong while reading `file`, which is of this kind, into a `DataError` that says so."""
    try:
        yield
    except UserError:
        raise
    except _PickledObjects as error:
        raise DataError(
            f"{file}: found pickled objects, expected plain numbers and names: a pickle can run any code; "
            "save it again from arrays of numbers or strings, without dtype=object"
        ) from error
    except Exception as error:  # a damaged file fails in many ways, each with a type of its own
        raise DataError(
            f"{file}: cannot be read ({reason_of(error)}), expected a whole {kind} file; it may be truncated: "
            "copy it again"
        ) from error


class Archive:
    """An .npz file whose arrays are read when they are asked for. Nothing is ever extracted to disk.

    Attributes:
        names: of its arrays, in the order of the file.
    """

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        if len(members) < len(archive.infolist()):
            raise ValueError("it holds two arrays of the same name")
        if len(members) % 2**16 != _num_listed(archive):
            raise ValueError(f"{len(members)} arrays are found, and {_num_listed(archive)} announced")
        if any(member.compress_type not in _METHODS for member in members.values()):
            raise ValueError("it is neither stored nor deflated, as numpy writes it")
        num_bytes = sum(member.file_size for member in members.values())
        if num_bytes > max(_HARMLESS_BYTES, _MAX_RATIO * sum(member.compress_size for member in members.values())):
            raise ValueError(f"it would unpack to {num_bytes} bytes, more than {_MAX_RATIO} times its size")
        for member in members.values():
            archive.open(member).close()  # which compares the two names that an archive has for each of its members
        self._members = members
        self.names = list(members)

    def __getitem__(self, name: str) -> NDArray[Any]:
        with self.stream(name) as (stream, shape, dtype):
            raw = bytearray(stream.read())  # not bytes, which would make an array that cannot be written to
        return np.ndarray(shape, dtype, raw)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of an array, none of whose numbers are read."""
        member = self._members[name]
        with self._archive.open(member) as stream:
            return _read_header(stream, name, member.file_size)[0]

    @contextmanager
    def stream(self, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]]:
        """The bytes of an array in C order, to be read to their end, and its shape and type.

        One that lies there in Fortran order, as numpy saves what was indexed or transposed, is read as a whole.
        """
        member = self._members[name]
        with self._archive.open(member) as stream:
            shape, is_fortran, dtype = _read_header(stream, name, member.file_size)
            if is_fortran:
                stream = io.BytesIO(_array(stream.read(), shape, is_fortran, dtype).tobytes())
            yield stream, shape, dtype


def _num_listed(archive: zipfile.ZipFile) -> int:
    """How many members the end of an archive announces (16 bits): `zipfile` takes a damaged list for a shorter one."""
    file: Any = archive.fp
    file.seek(-len(archive.comment) - 12, os.SEEK_END)
    return int.from_bytes(file.read(2), "little")


@contextmanager
def opened(file: Path) -> Iterator[Archive]:
    """An .npz file; what goes wrong while it is open is a `DataError`."""
    with reading(file):
        check_regular(file)
        with zipfile.ZipFile(file) as archive:
            yield Archive(archive)


def load_arrays(file: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz file.

    Raises:
        DataError: the file is missing, damaged, or holds pickled objects.
    """
    with opened(file) as archive:
        return {name: archive[name] for name in archive.names}


def load_array(file: Path) -> NDArray[Any]:
    """The array of an .npy file.

    Raises:
        DataError: the file is missing, damaged, or holds pickled objects.
    """
    with reading(file):
        check_regular(file)
        with open(file, "rb") as stream:
            shape, is_fortran, dtype = _read_header(stream, "array", file.stat().st_size)
            return _array(stream.read(), shape, is_fortran, dtype)


def read_any_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and type, from the header of an .npy file."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the .npy format")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read_header(stream)
    return shape, is_fortran, dtype


def _array(raw: bytes, shape: tuple[int, ...], is_fortran: bool, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array whose numbers lie in `raw` by rows, or in Fortran order by columns."""
    return np.ndarray(shape[::-1], dtype, raw).T if is_fortran else np.ndarray(shape, dtype, raw)


def _read_header(stream: IO[bytes], name: str, file_size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and type of an array of plain values that fills the rest of its file."""
    shape, is_fortran, dtype = read_any_header(stream)
    if dtype.hasobject:
        raise _PickledObjects
    if dtype.itemsize == 0 and math.prod(shape) != 0:
        raise ValueError(f"{name} has entries of no bytes: {dtype} {shape}")
    found, expected = file_size - stream.tell(), math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0 or found != expected:
        raise ValueError(f"{name} has {found} bytes, not the {expected} of {dtype} {shape}")
    return shape, is_fortran, dtype
