"""Packed clips: one .npz with `frames [N, K, C]`, `offsets [n+1]`, `y`, and what else is known of each clip.

Optional: `label_names`, `signer`, `ids`, `split`, `fps`, and `claims_unseen_signers` (true when the split promises that
nobody in test is in train).
"""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.clips import ClipSource, RawClip
from ds_trainer.tasks.sign.readers.npz_file import opened, reading

FORMAT = "an .npz file with frames, offsets and y (packed clips)"
VERSION = 1

_REQUIRED = ("frames", "offsets", "y")
_OPTIONAL = ("label_names", "signer", "ids", "split", "fps", "claims_unseen_signers")
_MAGIC = b"PK"


def recognises(path: Path) -> bool:
    """Whether `path` is an .npz file by its name or its first bytes."""
    if not path.is_file():
        return False
    with reading(path), open(path, "rb") as file:
        return path.suffix == ".npz" or file.read(len(_MAGIC)) == _MAGIC


def files(path: Path) -> list[Path]:
    """The file itself."""
    return [path]


def read(path: Path) -> ClipSource:
    """The clips in the order of the file."""
    arrays = _load_index(path)
    frames_shape = _frames_shape(path)
    problems = _wrong_shapes(arrays, frames_shape) or _contradictions(arrays, frames_shape[0])
    if problems:
        raise DataError([f"{path}: {problem}" for problem in problems])
    names = [str(name) for name in arrays["label_names"]] if "label_names" in arrays else []
    labels = arrays["y"]
    return ClipSource(
        name=str(path),
        num_clips=len(labels),
        num_signs=len(names) or int(labels.max(initial=-1)) + 1,
        clips=_clips(path, arrays),
        sign_names=names,
        fps=float(arrays["fps"]) if "fps" in arrays else None,
        claims_unseen_signers=bool(arrays.get("claims_unseen_signers", False)),
    )


def _load_index(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays but the frames, which are read clip by clip."""
    with opened(path) as arrays:
        missing = [name for name in _REQUIRED if name not in arrays]
        if missing:
            found = ", ".join(arrays.files) or "nothing"
            raise DataError(f"{path}: found {found}, expected also {', '.join(missing)}; save it with these too")
        return {name: arrays[name] for name in (*_REQUIRED[1:], *_OPTIONAL) if name in arrays}


def _frames_shape(path: Path) -> tuple[int, ...]:
    with reading(path), zipfile.ZipFile(path) as archive, archive.open("frames.npy") as stream:
        return _read_header(stream)[0]


def _read_header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read_header(stream)
    if dtype.hasobject:
        raise ValueError("frames: object array, and allow_pickle is False")
    if is_fortran:
        raise ValueError("frames are in Fortran order, not in C order")
    return shape, dtype


def _wrong_shapes(arrays: Mapping[str, NDArray[Any]], frames_shape: tuple[int, ...]) -> list[str]:
    problems = []
    if len(frames_shape) != 3:
        problems.append(f"frames: found shape {frames_shape}, expected [frames, keypoints, features]")
    for name in ("offsets", "y"):
        if arrays[name].ndim != 1 or arrays[name].dtype.kind not in "iu":
            found = f"{arrays[name].dtype} of shape {arrays[name].shape}"
            problems.append(f"{name}: found {found}, expected a list of whole numbers")
    return problems


def _contradictions(arrays: Mapping[str, NDArray[Any]], num_frames: int) -> list[str]:
    """Where arrays of the right shape do not fit each other."""
    problems = []
    offsets, labels = arrays["offsets"], arrays["y"]
    if len(offsets) != len(labels) + 1:
        problems.append(f"offsets: found {len(offsets)}, expected {len(labels) + 1}, one more than the clips in y")
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != num_frames or (np.diff(offsets) < 0).any():
        problems.append(f"offsets: expected to rise from 0 to the {num_frames} frames; {_first_fall(offsets)}")
    for name in ("signer", "ids", "split"):
        if name in arrays and arrays[name].shape != labels.shape:
            problems.append(f"{name}: found shape {arrays[name].shape}, expected {labels.shape}, one for each clip")
    return problems


def _first_fall(offsets: NDArray[Any]) -> str:
    falls = np.flatnonzero(np.diff(offsets) < 0)
    if len(falls):
        return f"found {offsets[falls[0]]} before {offsets[falls[0] + 1]} at clip {falls[0]}; save clips in their order"
    found = f"from {offsets[0]} to {offsets[-1]}" if len(offsets) else "none"
    return f"found {found}; save frames and offsets again"


def _clips(path: Path, arrays: Mapping[str, NDArray[Any]]) -> Iterator[RawClip | DataError]:
    """Clips in file order, streamed from the archive: the frames may be larger than memory."""
    offsets, labels = arrays["offsets"], arrays["y"]
    try:
        with reading(path), zipfile.ZipFile(path) as archive, archive.open("frames.npy") as stream:
            shape, dtype = _read_header(stream)
            for clip, label in enumerate(labels):
                shape_of_clip = (int(offsets[clip + 1] - offsets[clip]), *shape[1:])
                raw = stream.read(int(np.prod(shape_of_clip, dtype=np.int64)) * dtype.itemsize)
                frames = np.frombuffer(raw, dtype=dtype).reshape(shape_of_clip)
                yield RawClip(
                    frames,
                    int(label) + 1,
                    str(arrays["signer"][clip]) if "signer" in arrays else "unknown",
                    str(arrays["split"][clip]) if "split" in arrays else "",
                    str(arrays["ids"][clip]) if "ids" in arrays else str(clip),
                    str(path),
                )
    except DataError as error:
        yield error
