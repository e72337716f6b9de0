"""Reads an .npy file that holds a pickled dict of numbers, without the power of a pickle to run code.

What a pickle may name is replaced: numpy's own builders of arrays and numbers become the small stand-ins here, which
only keep what they are given, and any other name is refused.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.readers.npz_file import reading

_INTEGERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")


def load_plain_object(file: Path) -> Any:
    """The dict, list or number that was saved alone with `numpy.save`, of builtin types only.

    Raises:
        DataError: the file is damaged, or its pickle names anything but an array of builtins and whole numbers.
    """
    try:
        with reading(file), open(file, "rb") as stream:
            version = np.lib.format.read_magic(stream)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read_header(stream)
            if shape != () or not dtype.hasobject:
                raise ValueError(f"it holds {dtype} of shape {shape}, not one object")
            content = _PlainUnpickler(stream).load()
            if not isinstance(content, _Array) or len(content.items) != 1:
                raise ValueError("it holds no array of one object")
            return content.items[0]
    except (pickle.UnpicklingError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise DataError(
            f"{file}: refused ({error}), expected a pickled dict of lists of whole numbers; "
            "its pickle was not run: get the file from where the data comes from, or pack it again"
        ) from error


class _Dtype:
    """Stands in for `numpy.dtype`: of it only the code of a whole number is ever used."""

    def __init__(self, code: str, *_: Any):
        self.code, self.byte_order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = ">" if state[1] == ">" else "<"

    def integers(self, raw: bytes) -> list[int]:
        if self.code not in _INTEGERS:
            raise pickle.UnpicklingError(f"found numbers of type {self.code!r}")
        numbers: list[int] = np.frombuffer(raw, dtype=self.byte_order + self.code).tolist()
        return numbers


class _Array:
    """Stands in for `numpy.ndarray`: a list of its items, in order."""

    def __init__(self, *_: Any):
        self.items: list[Any] = []

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, _shape, dtype, _is_fortran, content = state
        self.items = content if isinstance(content, list) else dtype.integers(content)

    def __iter__(self) -> Any:
        return iter(self.items)


def _scalar(dtype: _Dtype, raw: bytes) -> int:
    return dtype.integers(raw)[0]


_STAND_INS = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"found {module}.{name}")
        return _STAND_INS[module, name]
