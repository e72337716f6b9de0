"""What readers give and the clip store takes: clips one at a time, so that memory does not grow with their number."""

import mmap
import re
import shlex
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ds_trainer.errors import DataError
from ds_trainer.problems import legible, shown
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.text_file import is_plain

SPLITS = ("", "train", "val", "test")
"""The splits that data may bring; "" where it brings none. A clip store keeps the position in this tuple."""

NOBODY = "unknown"
"""The signer of clips of which the data does not say who signs."""

NAMING_SIGNERS = "folders {signer}/{sign}, a column signer in index.csv or an array signer in the .npz tell them apart"
"""How data says who signs."""

_FRAMES_AT_ONCE = 400  # eight clips: 14 MiB of pages, where 32 clips have 61

MAX_PATH = 500
"""Characters of a path that a message shows."""


def plain_name(text: str) -> str:
    """A name without what nobody sees: blanks around it, and whether letters and their accents are one or apart."""
    return unicodedata.normalize("NFC", text).strip()


def repeated(names: Sequence[str]) -> str | None:
    """What must be told of names of signs, one of which stands there twice."""
    first: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if first.setdefault(name, number) != number:
            return (
                f"found the name {shown(name)} for the signs {first[name]} and {number}, expected another for each; "
                "rename one, or give their clips the same sign"
            )
    return None


def by_number(name: str) -> tuple[list[str | int], str]:
    """What to sort names by so that numbers in them count as numbers: 9 before 10."""
    words = re.split(r"([0-9]{1,4000})", name)  # of more digits Python makes no number
    return [int(word) if place % 2 else word for place, word in enumerate(words)], name


def data_flag(path: Path) -> str:
    """The flag that gives this data, to be typed into a shell."""
    return f"--data {typed(path)}"


def typed(path: Path) -> str:
    """The path as it is typed into a shell."""
    return legible(shlex.quote(str(path)), MAX_PATH)


def as_float32(frames: NDArray[Any]) -> NDArray[np.float32]:
    """Contiguous float32; what is too large for it becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(frames, dtype="<f4")


def is_aside(name: str) -> bool:
    """Whether a file or folder is hidden, or one that macOS adds to an archive and Linux to a disk."""
    return name.startswith(".") or name in ("__MACOSX", "lost+found")


class Progress(Protocol):
    """Passes items on and may show how many of them are done."""

    def __call__(self, items: Iterable[Any], total: int, label: str, /) -> Iterable[Any]: ...


def no_progress(items: Iterable[Any], total: int, label: str, /) -> Iterable[Any]:
    """Passes items on and shows nothing."""
    return items


@dataclass(frozen=True)
class RawClip:
    """One clip as its reader found it, unchecked.

    Args:
        frames: [T, K, C]; a missing keypoint has all coordinates exactly 0.
        sign: its number, from 1.
        signer: a name; blank: unknown.
        split: one of `SPLITS`.
        origin: the file, and where in it, for messages.
    """

    frames: NDArray[Any]
    sign: int
    signer: str
    split: str
    clip_id: str
    origin: str


@dataclass(frozen=True)
class ClipSource:
    """All clips of one data set, read when iterated over.

    Args:
        name: what the data is, for logs.
        num_clips: as far as it is known before reading: only progress depends on it.
        num_signs: signs are numbered 1..num_signs.
        clips: in a fixed order, iterated over once; a file that cannot be read gives its error in place of a clip, so
            that all damaged files can be reported together.
        sign_names: of sign 1, 2, ...; empty: they are called by numbers.
        first_number: what sign 1 is called where signs are called by numbers.
        layout: what the keypoints are; None: what their number says.
        claims_unseen_signers: whether the split that the data brings promises that nobody in test is in train.
    """

    name: str
    num_clips: int
    num_signs: int
    clips: Iterator[RawClip | DataError]
    sign_names: Sequence[str] = ()
    first_number: int = 1
    layout: KeypointLayout | None = None
    claims_unseen_signers: bool = False


def wrong_names(source: ClipSource) -> list[str]:
    """What is wrong with the names of signs."""
    twice = repeated(source.sign_names)
    problems = [] if twice is None else [f"{source.name}: {twice}"]
    return problems + [
        f"{source.name}: found the name {shown(name)} for sign {number}, expected a text in one line; mend it"
        for number, name in enumerate(source.sign_names, start=1)
        if not name or not is_plain(name)
    ]


_Kind = TypeVar("_Kind", bound=np.generic)


def frames_at(frames_NKC: NDArray[_Kind], numbers: NDArray[np.int64]) -> NDArray[_Kind]:
    """A copy of the frames of these numbers, [..., K, C].

    A mapped file gives its pages back after some frames. They stay in the system's cache, but are no longer this
    process's memory, which would else grow until it held the whole store.
    """
    assert numbers.size == 0 or 0 <= numbers.min() <= numbers.max() < len(frames_NKC), "`take` does not ask"
    shape_KC, mapped = frames_NKC.shape[1:], frames_NKC.base
    found = np.empty((numbers.size, *shape_KC), frames_NKC.dtype)
    for begin in range(0, numbers.size, _FRAMES_AT_ONCE):
        some = slice(begin, begin + _FRAMES_AT_ONCE)
        np.take(frames_NKC, numbers.ravel()[some], axis=0, out=found[some], mode="clip")
        if isinstance(mapped, mmap.mmap):
            mapped.madvise(mmap.MADV_DONTNEED)
    return found.reshape(*numbers.shape, *shape_KC)


def frames_evenly(frames_NKC: NDArray[_Kind], limit: int) -> NDArray[_Kind]:
    """Up to `limit` frames, taken evenly."""
    return frames_at(frames_NKC, evenly(np.arange(len(frames_NKC)), limit))


def evenly(items: NDArray[_Kind], limit: int) -> NDArray[_Kind]:
    """Up to `limit` of some clips, taken evenly: a store may be larger than memory."""
    chosen: NDArray[_Kind] = items[np.linspace(0, len(items) - 1, min(len(items), limit)).astype(int)]
    return chosen
