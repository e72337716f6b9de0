"""Packed clips: one .npz with `frames [N, K, C]`, `offsets [n+1]`, `y`, and what else is known of each clip.

Optional: `label_names`, `signer`, `ids`, `split`, and `claims_unseen_signers` (true when the split promises that nobody
in test is in train); `fps` is passed over. Without `label_names` `y` may be names, and signs of numbers are called by
them. Clips of one length, filled up with zeros, may come as `frames [n, T, K, C]` without `offsets`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ds_trainer.errors import DataError
from ds_trainer.problems import legible, nearest_name, told_once
from ds_trainer.progress import log
from ds_trainer.tasks.sign.clips import ClipSource, RawClip, by_number, plain_name
from ds_trainer.tasks.sign.readers.npz_file import opened, reading

FORMAT = "an .npz file with frames, offsets and y (packed clips)"
VERSION = 3

_REQUIRED = ("frames", "offsets", "y")
_OF_EACH_CLIP = ("signer", "ids", "split")
_CLAIM = "claims_unseen_signers"
_OPTIONAL = ("label_names", *_OF_EACH_CLIP, _CLAIM)
_KNOWN = (*_REQUIRED, *_OPTIONAL, "fps")
_MAGIC = b"PK"
_MAX_SIGNS = 100_000

Arrays = Mapping[str, NDArray[Any]]


def recognises(path: Path) -> bool:
    """Whether `path` is an .npz file by its name or its first bytes."""
    if not path.is_file():
        return False
    with reading(path), open(path, "rb") as file:
        return path.suffix.lower() == ".npz" or file.read(len(_MAGIC)) == _MAGIC


def is_packed(file: Path) -> bool:
    """Whether a file of clips, sound as far as one looks, holds frames and labels in the way of this format."""
    try:
        with opened(file) as archive:
            return {"frames", "y"} <= set(archive.names)
    except DataError:
        return False


def files(path: Path) -> list[Path]:
    """The file itself."""
    return [path]


def read(path: Path) -> ClipSource:
    """The clips in the order of the file."""
    arrays, frames_shape = _load_index(path)
    is_filled_up = len(frames_shape) == 4 and "offsets" not in arrays
    if is_filled_up:
        num_clips, length, *of_frame = frames_shape
        frames_shape = (num_clips * length, *of_frame)
        arrays["offsets"] = np.arange(num_clips + 1) * length
    check(path, arrays, frames_shape)
    with reading(path):  # numpy gives names that are no text only where they are asked for
        arrays |= _numbered(arrays["y"])
        texts = {name: _texts(arrays[name]) for name in ("label_names", *_OF_EACH_CLIP) if name in arrays}
    names, clips = texts.get("label_names", []), _clips(path, arrays, texts)
    return ClipSource(
        name=str(path),
        num_clips=len(arrays["y"]),
        num_signs=len(names) or int(arrays["y"].max(initial=0)) + 1,
        clips=map(_cut, clips) if is_filled_up else clips,
        sign_names=names,
        first_number=0,
        claims_unseen_signers=bool(arrays.get(_CLAIM, False)),
    )


def check(path: Path, arrays: Arrays, frames_shape: tuple[int, ...]) -> None:
    """Raise `DataError` for arrays that are no packed clips; `arrays` are all but the frames."""
    refuse_more_than_bytes(path, max((array.size for array in arrays.values()), default=0))
    problems = _wrong_shapes(arrays, frames_shape) or _contradictions(arrays, frames_shape[0])
    if problems:
        raise DataError([f"{path}: {problem}" for problem in problems])


def refuse_more_than_bytes(path: Path, num_clips: int) -> None:
    """Raise `DataError` for a file with less than a byte a clip: 10 kB of zeros, unpacked, are millions of them."""
    num_bytes = path.stat().st_size
    if num_clips > num_bytes:
        raise DataError(
            f"{path}: found {num_clips} clips or names in {num_bytes} bytes, expected a byte of each at least; get "
            "the file from where the data comes from"
        )


def _load_index(path: Path) -> tuple[dict[str, NDArray[Any]], tuple[int, ...]]:
    """All arrays but the frames, which are read clip by clip, and the shape of the frames."""
    with opened(path) as archive:
        frames_shape = archive.shape_of("frames") if "frames" in archive.names else ()
        required = [name for name in _REQUIRED if name != "offsets" or len(frames_shape) != 4]
        missing = [name for name in required if name not in archive.names]
        if missing:
            found = ", ".join(archive.names[:20]) or "nothing"
            raise DataError(f"{path}: found {found}, expected also {', '.join(missing)}; save it with these too")
        _tell_unused(path, [name for name in archive.names if name not in _KNOWN])
        return {name: archive[name] for name in (*_REQUIRED[1:], *_OPTIONAL) if name in archive.names}, frames_shape


def _tell_unused(path: Path, names: Sequence[str]) -> None:
    if names:
        told = told_once([f"{legible(name)}: {nearest_name(name, _KNOWN)}" for name in names[:20]])
        log.warning(f"note: {path}: arrays that are not used: {'; '.join(told)}")


def _cut(clip: RawClip | DataError) -> RawClip | DataError:
    return clip if isinstance(clip, DataError) else replace(clip, frames=without_filling(clip.frames))


def without_filling(frames: NDArray[Any]) -> NDArray[Any]:
    """Frames without those of zeros at their end, but for one."""
    filled = np.flatnonzero((frames != 0).any(axis=(1, 2)))
    return frames[: int(filled.max(initial=0)) + 1]


def _wrong_shapes(arrays: Arrays, frames_shape: tuple[int, ...]) -> list[str]:
    problems = []
    if len(frames_shape) != 3:
        problems.append(f"frames: found shape {frames_shape}, expected [frames, keypoints, features]")
    of_y = ("iu", "whole numbers") if "label_names" in arrays else ("iuU", "whole numbers, or of names as np.str_")
    for name, (kinds, expected) in {"offsets": ("iu", "whole numbers"), "y": of_y}.items():
        if arrays[name].ndim != 1 or arrays[name].dtype.kind not in kinds:
            problems.append(f"{name}: found {_type_of(arrays[name])}, expected a list of {expected}")
    for name in ("label_names", *_OF_EACH_CLIP):
        if name in arrays and (arrays[name].ndim != 1 or arrays[name].dtype.kind not in "Uiu"):
            problems.append(f"{name}: found {_type_of(arrays[name])}, expected a list of texts; save it as np.str_")
    if _CLAIM in arrays and (arrays[_CLAIM].shape != () or arrays[_CLAIM].dtype.kind not in "biu"):
        problems.append(f"{_CLAIM}: found {_type_of(arrays[_CLAIM])}, expected true or false")
    return problems


def _type_of(array: NDArray[Any]) -> str:
    return f"{array.dtype} of shape {array.shape}"


def _contradictions(arrays: Arrays, num_frames: int) -> list[str]:
    """Where arrays of the right shape do not fit each other, or hold what cannot be."""
    problems = []
    offsets, labels = arrays["offsets"], arrays["y"]
    if len(offsets) != len(labels) + 1:
        problems.append(f"offsets: found {len(offsets)}, expected {len(labels) + 1}, one more than the clips in y")
    # Compared and not subtracted: the difference of unsigned numbers is never negative.
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != num_frames or (offsets[1:] < offsets[:-1]).any():
        problems.append(f"offsets: expected to rise from 0 to the {num_frames} frames; {_first_fall(offsets)}")
    for name in _OF_EACH_CLIP:
        if name in arrays and arrays[name].shape != labels.shape:
            problems.append(f"{name}: found shape {arrays[name].shape}, expected {labels.shape}, one for each clip")
    return problems + _out_of_range(labels, arrays.get("label_names"))


def _out_of_range(labels: NDArray[Any], names: NDArray[Any] | None) -> list[str]:
    """Labels that are numbers, and name nothing."""
    if labels.dtype.kind == "U":
        return []
    most = _MAX_SIGNS if names is None else len(names)
    wrong = np.flatnonzero((labels < 0) | (labels >= most))
    if not len(wrong):
        return []
    meant = "" if names is None else ", the place of its name in label_names"
    found = f"found {labels[wrong[0]]} at clip {wrong[0]} ({len(wrong)} such)"
    return [f"y: {found}, expected 0..{most - 1}{meant}; count from 0"]


def _first_fall(offsets: NDArray[Any]) -> str:
    falls = np.flatnonzero(offsets[1:] < offsets[:-1])
    if len(falls):
        return f"found {offsets[falls[0]]} before {offsets[falls[0] + 1]} at clip {falls[0]}; save clips in their order"
    found = f"from {offsets[0]} to {offsets[-1]}" if len(offsets) else "none"
    return f"found {found}; save frames and offsets again"


def _numbered(labels: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """`y` and `label_names` of labels that are names; of numbers, which are as they should be, nothing."""
    if labels.dtype.kind != "U":
        return {}
    texts = [plain_name(text) for text in _texts(labels)]
    names = sorted(set(texts), key=by_number)
    numbers = {name: number for number, name in enumerate(names)}
    return {"y": np.array([numbers[text] for text in texts], np.int64), "label_names": np.array(names)}


def _texts(array: NDArray[Any]) -> list[str]:
    return [str(text) for text in array.tolist()]


def _clips(path: Path, arrays: Arrays, texts: Mapping[str, list[str]]) -> Iterator[RawClip | DataError]:
    """Clips in file order, streamed from the archive: the frames may be larger than memory."""
    offsets, labels = arrays["offsets"].tolist(), arrays["y"].tolist()
    try:
        with opened(path) as archive, archive.stream("frames") as (stream, shape, dtype):
            for clip, label in enumerate(labels):
                shape_of_clip = (offsets[clip + 1] - offsets[clip], *shape[-2:])
                raw = stream.read(math.prod(shape_of_clip) * dtype.itemsize)
                yield RawClip(
                    np.ndarray(shape_of_clip, dtype, raw),
                    label + 1,
                    texts["signer"][clip] if "signer" in texts else "",
                    texts["split"][clip] if "split" in texts else "",
                    texts["ids"][clip] if "ids" in texts else str(clip),
                    str(path),
                )
    except DataError as error:
        yield error
