"""One file of clips, in whatever format, or a folder with a file a frame: nothing is known of it but its keypoints."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.clips import RawClip
from ds_trainer.tasks.sign.extraction.footage import extraction_of, is_footage
from ds_trainer.tasks.sign.folders import found_below
from ds_trainer.tasks.sign.readers import openpose, packed_npz, parquet_file, pose_file
from ds_trainer.tasks.sign.readers.npz_file import load_array, load_arrays, reading

SUFFIXES = (".npz", ".npy", ".pose", ".parquet")
VERSION = 2 + pose_file.VERSION + parquet_file.VERSION + openpose.VERSION

_OF_ONE_CLIP: dict[str, Callable[[Path], NDArray[Any]]] = {
    ".pose": pose_file.read_pose,
    ".parquet": parquet_file.read_parquet,
    ".npy": load_array,
}


def files_below(folder: Path) -> Iterator[Path]:
    """All files of clips in a folder and its folders, sorted, but what is put aside.

    Raises:
        DataError: when all else is found, with each folder that cannot be looked into.
    """
    return found_below(folder, is_clip_file)


def has_clips(folder: Path) -> bool:
    """Whether there is any of `files_below`, without looking for them all."""
    return any(True for _ in files_below(folder))


def is_clip_file(path: Path) -> bool:
    """Whether `path` is called like a file that `load_clips` reads, or is a folder of OpenPose's.

    Raises:
        DataError: it cannot be looked at.
    """
    return path.suffix.lower() in SUFFIXES or openpose.is_openpose(path)


def read_below(folder: Path) -> list[Path]:
    """All files that `files_below` stands for: a folder of OpenPose's is read as its files."""
    return [
        file
        for clip in files_below(folder)
        for file in ([clip] if clip.suffix.lower() in SUFFIXES else openpose.frame_files(clip))
    ]


def load_clips(file: Path) -> dict[str, NDArray[Any]]:
    """The clips of a file, `[T, K, C]` if it is in order; the only one is called "".

    An `.npz` holds one array a clip, or packed clips (`frames`, and `offsets` unless it is filled up with zeros).

    Raises:
        DataError: it is missing, damaged, holds no clip, or is of another kind.
    """
    if not file.exists():
        raise DataError(f"{file}: missing, expected a file of clips; check its path")
    suffix = file.suffix.lower()
    read_one = openpose.read_openpose if openpose.is_openpose(file) else _OF_ONE_CLIP.get(suffix)
    if read_one is not None:
        return {"": read_one(file)}
    if suffix != ".npz":
        raise DataError(
            f"{file}: found {file.suffix or 'no suffix'}, expected one of {', '.join(SUFFIXES)}{_hint(file)}"
        )
    clips = load_arrays(file)
    if {"frames", "offsets"} <= clips.keys() or ("frames" in clips and clips["frames"].ndim == 4):
        clips = _unpacked(file, clips)
    if not clips:
        raise DataError(f"{file}: found no clips, expected at least one; extract it again, or remove the file")
    return {"": next(iter(clips.values()))} if len(clips) == 1 else clips


def labelled(folder: Path, name: Path, sign: int, signer: str, split: str) -> Iterator[RawClip | DataError]:
    """The clips of the file `name` within `folder`, all of one sign, or why it cannot be read."""
    try:
        clips = load_clips(folder / name)
    except DataError as error:
        yield error
        return
    for clip, frames in clips.items():
        yield RawClip(frames, sign, signer, split, f"{name}/{clip}" if clip else str(name), str(folder / name))


def _hint(file: Path) -> str:
    return f"; {extraction_of(file)} makes one" if is_footage(file) else ""


def _unpacked(file: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The clips of a packed file by their names; the second of a name is called NAME#2."""
    with reading(file):
        if "offsets" in arrays:
            used = {name: arrays[name] for name in ("offsets", "ids") if name in arrays}
            unlabelled = np.zeros(max(0, arrays["offsets"].size - 1), np.int64)
            packed_npz.check(file, {**used, "y": unlabelled}, arrays["frames"].shape)
            found = [arrays["frames"][first:last] for first, last in itertools.pairwise(arrays["offsets"].tolist())]
        else:
            packed_npz.refuse_more_than_bytes(file, len(arrays["frames"]))
            found = [packed_npz.without_filling(frames) for frames in arrays["frames"]]
        names = arrays.get("ids", np.arange(len(found))).tolist()
        clips: dict[str, NDArray[Any]] = {}
        times = Counter[str]()
        for name, frames in zip(map(str, names), found, strict=True):
            unique = name
            while unique in clips:
                times[name] += 1
                unique = f"{name}#{times[name] + 1}"
            clips[unique] = frames
        return clips
