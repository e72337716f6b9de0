"""Reading .npz files of unknown origin: no pickle is ever run, and damage gets one clear line."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from ds_trainer.errors import DataError


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turns what goes wrong while reading `file` into a `DataError` that says so."""
    try:
        yield
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"{file}: found pickled objects, expected plain numbers and names: a pickle can run any code; "
                "save it again from arrays of numbers or strings, without dtype=object"
            ) from error
        raise DataError(
            f"{file}: cannot be read ({error}), expected a whole .npz or .npy file; it may be truncated: copy it again"
        ) from error


@contextmanager
def opened(file: Path) -> Iterator[NpzFile]:
    """An .npz file whose arrays are read when they are asked for; what goes wrong then is a `DataError` too."""
    # Opened here: numpy leaves a file open that turns out to be damaged.
    with reading(file), open(file, "rb") as stream:
        arrays = np.load(stream, allow_pickle=False)
        if not isinstance(arrays, NpzFile):
            raise ValueError("it holds a single array")
        with arrays:
            yield arrays


def load_arrays(file: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz file.

    Raises:
        DataError: the file is missing, damaged, or holds pickled objects.
    """
    with opened(file) as arrays:
        return dict(arrays)
