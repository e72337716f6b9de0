"""Reads an .npy file that holds a pickled dict of numbers, without the power of a pickle to run code.

A pickle is a program. Of its instructions only those are known here that make plain values, and what it may name is
replaced: numpy's own builders of arrays and numbers become the small stand-ins here, which only keep what they are
given. Any other instruction or name is refused.
"""

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ds_trainer.errors import DataError
from ds_trainer.problems import reason_of, shown
from ds_trainer.tasks.sign.readers.npz_file import read_any_header, reading
from ds_trainer.text_file import check_regular

_INTEGERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")


def load_plain_object(file: Path) -> Any:
    """The dict, list or number that was saved alone with `numpy.save`, of builtin types only.

    Raises:
        DataError: the file is damaged, or its pickle names anything but an array of builtins and whole numbers.
    """
    with reading(file):
        check_regular(file)
        with open(file, "rb") as stream:
            shape, _, dtype = read_any_header(stream)
            if shape != () or not dtype.hasobject:
                raise ValueError(f"it holds {dtype} of shape {shape}, not one object")
            try:
                content = _PlainUnpickler(stream).load()
            except Exception as error:  # a damaged program fails in many ways, each with a type of its own
                raise DataError(
                    f"{file}: refused ({reason_of(error)}), expected a pickled dict of lists of whole numbers; "
                    "its pickle was not run: get the file from where the data comes from, or pack it again"
                ) from error
            if stream.read(1) or not isinstance(content, _Array) or len(content.items) != 1:
                raise ValueError("it holds no array of one object")
            return content.items[0]


class _Dtype:
    """Stands in for `numpy.dtype`: of it only the code of a whole number is ever used."""

    def __init__(self, code: str, *_: Any):
        self.code, self.byte_order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = ">" if state[1] == ">" else "<"

    def integers(self, raw: bytes) -> list[int]:
        if not isinstance(self.code, str) or self.code not in _INTEGERS:
            code = shown(self.code) if isinstance(self.code, str) else type(self.code).__name__
            raise pickle.UnpicklingError(f"found numbers of type {code}")
        numbers: list[int] = np.frombuffer(raw, dtype=self.byte_order + self.code).tolist()
        return numbers


class _Array:
    """Stands in for `numpy.ndarray`: a list of its items, in order."""

    def __init__(self, *_: Any):
        self.items: list[Any] = []

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, _is_fortran, content = state
        if not (isinstance(shape, tuple) and all(type(length) is int and 0 <= length < 2**63 for length in shape)):
            raise pickle.UnpicklingError("found a shape that is none")
        self.items = content if isinstance(content, list) else dtype.integers(content)
        if len(self.items) != math.prod(shape):
            raise pickle.UnpicklingError(f"found {len(self.items)} items in an array of shape {shown(shape)}")

    def __iter__(self) -> Any:
        return iter(self.items)


def _scalar(dtype: _Dtype, raw: bytes) -> int:
    [number] = dtype.integers(raw)
    return number


_STAND_INS = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}

_INSTRUCTIONS = (
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP"),
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
)
"""By their names in the module `pickle`."""


_LONGEST_TUPLE = 32
"""Those that make an array hold nine values at most, and one tuple within another."""


def _flat(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """An instruction that makes a tuple, and none of tuples of tuples: 45 of these, one in another twice, would keep
    who shows or hashes them busy for good."""

    def checked(unpickler: "_PlainUnpickler") -> None:
        load(unpickler)
        made = unpickler.stack[-1]
        is_deep = any(isinstance(part, tuple) for item in made if isinstance(item, tuple) for part in item)
        if len(made) > _LONGEST_TUPLE or is_deep:
            raise pickle.UnpicklingError("found a tuple of many values, or of tuples of tuples")

    return checked


class _Instructions(dict[int, Any]):
    def __missing__(self, code: int) -> Any:
        raise pickle.UnpicklingError(f"found the instruction {code}")


# The one written in Python: that in C makes room for as many remembered objects as a damaged byte asks for.
class _PlainUnpickler(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Any]] = _Instructions(
        {getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in _INSTRUCTIONS}
    )
    stack: list[Any]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"found {module}.{name}")
        return _STAND_INS[module, name]

    def load_build(self) -> None:
        """Only for stand-ins: the original sets any attribute of what was named."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Array | _Dtype):
            raise pickle.UnpicklingError("found a state for what has none")
        self.stack[-1].__setstate__(state)

    dispatch[pickle.BUILD[0]] = load_build
    for _code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
        dispatch[_code[0]] = _flat(dispatch[_code[0]])
