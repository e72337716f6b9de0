"""KArSL keypoints packed: all frames of a split in one raw file, and the lengths of its clips in a pickled dict."""

import math
import operator
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ds_trainer.errors import DataError
from ds_trainer.paths import exists
from ds_trainer.problems import reason_of, shown
from ds_trainer.tasks.sign.clips import SPLITS, ClipSource, RawClip
from ds_trainer.tasks.sign.readers.karsl_npz import NUM_SIGNS
from ds_trainer.tasks.sign.readers.npz_file import load_array, load_arrays, reading
from ds_trainer.tasks.sign.readers.plain_pickle import load_plain_object

FORMAT = "a folder of {split}_X.mmap, _X_shape.npy, _y.npz and _X_map_samples_lens.npy (KArSL packed)"
VERSION = 1

_ENDINGS = ("X.mmap", "X_shape.npy", "y.npz", "X_map_samples_lens.npy")

_MAX_NUMBER, _MAX_ENTRIES = 10**6, 2000

ClipEntry = tuple[int, str, int]
"""Sign, signer and number of frames of a clip."""


def recognises(path: Path) -> bool:
    """Whether `path` has the frames of at least one split."""
    return path.is_dir() and any(exists(path / f"{split}_X.mmap") for split in SPLITS[1:])


def files(path: Path) -> list[Path]:
    """The four files of each split, present or not."""
    return [path / f"{split}_{ending}" for split in _splits(path) for ending in _ENDINGS]


def read(path: Path) -> ClipSource:
    """The clips of all splits, in the order of their frames."""
    splits = _splits(path)
    missing = [file for file in files(path) if not file.is_file()]
    if missing:
        raise DataError([f"{file}: missing, expected beside the frames of its split; copy it too" for file in missing])
    entries = {split: _entries(path, split) for split in splits}
    signs = [sign for of_split in entries.values() for sign, _, _ in of_split]
    return ClipSource(
        name=str(path),
        num_clips=len(signs),
        num_signs=min(max(signs, default=0), NUM_SIGNS),
        clips=_clips(path, entries),
        # The same signers stand in train and test.
        claims_unseen_signers=False,
    )


def _splits(path: Path) -> list[str]:
    """The splits of which there is any file: one whose frames are gone must not be left out in silence."""
    return [split for split in SPLITS[1:] if any(exists(path / f"{split}_{ending}") for ending in _ENDINGS)]


def _entries(path: Path, split: str) -> list[ClipEntry]:
    """The clips of a split in the order of their frames, checked against the labels."""
    lengths_path, labels_path = path / f"{split}_X_map_samples_lens.npy", path / f"{split}_y.npz"
    lengths = load_plain_object(lengths_path)
    labels = next(iter(load_arrays(labels_path).values()), np.empty(0))
    try:
        # Lists that are shared stand for more entries than memory holds: one more than there are labels is enough.
        entries = list(islice(_entries_of(lengths), labels.size + 1))
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(
            f"{lengths_path}: found another structure ({reason_of(error)}), expected sign -> signer -> list of "
            "lengths; pack the split again"
        ) from error
    if not np.array_equal(labels, [sign - 1 for sign, _, _ in entries]):
        raise DataError(
            f"{labels_path}: found {labels.size} labels that are not those of the clips in {lengths_path.name}, "
            "expected sign - 1 for each clip in its order; pack the split again"
        )
    return entries


def _entries_of(lengths: Any) -> Iterator[ClipEntry]:
    """The frames were written in the order in which signs and signers came into the dict."""
    for sign, of_signers in lengths.items():
        if max(len(lengths), len(of_signers)) > _MAX_ENTRIES:
            raise ValueError(f"more than {_MAX_ENTRIES} signs or signers")
        for signer, of_clips in of_signers.items():
            for length in of_clips:
                if not (isinstance(length, int) and length > 0):
                    raise ValueError(f"a clip of {length if isinstance(length, int) else type(length).__name__} frames")
                yield _whole(sign), f"{_whole(signer):02}", length


def _whole(number: Any) -> int:
    """A sign or signer: a whole number, or the text of one."""
    if isinstance(number, float) or not -_MAX_NUMBER < (whole := int(number)) < _MAX_NUMBER:
        raise ValueError(f"{shown(number)} for a sign or signer")
    return whole


def _clips(path: Path, entries: dict[str, list[ClipEntry]]) -> Iterator[RawClip | DataError]:
    for split, of_split in entries.items():
        frames_path = path / f"{split}_X.mmap"
        try:
            frames = _map_frames(frames_path, path / f"{split}_X_shape.npy", sum(length for *_, length in of_split))
        except DataError as error:
            yield error
            continue
        start = 0
        for number, (sign, signer, length) in enumerate(of_split):
            clip_id = f"{signer}-{split}/{sign:04}/{number}"
            yield RawClip(frames[start : start + length], sign, signer, split, clip_id, str(frames_path))
            start += length


def _map_frames(frames_path: Path, shape_path: Path, num_frames: int) -> NDArray[Any]:
    with reading(shape_path):
        shape = tuple(operator.index(length) for length in load_array(shape_path).tolist())
    if len(shape) != 3 or shape[0] != num_frames or min(shape) < 1:
        raise DataError(
            f"{shape_path}: found shape {shape}, expected ({num_frames}, keypoints, features) by the lengths of the "
            "clips; pack the split again"
        )
    expected_bytes = math.prod(shape) * np.dtype(np.float32).itemsize
    num_bytes = frames_path.stat().st_size
    if num_bytes != expected_bytes:
        raise DataError(
            f"{frames_path}: found {num_bytes} bytes, expected {expected_bytes} for float32 {shape}; "
            "it may be truncated: copy it again"
        )
    with reading(frames_path):
        return np.memmap(frames_path, dtype=np.float32, mode="r", shape=shape)
