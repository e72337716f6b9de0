"""Clips as a user of a trained model has them: in files and folders of any form, without labels."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ds_trainer.errors import DataError, looking_at
from ds_trainer.progress import complain
from ds_trainer.tasks.sign.extraction.footage import VIDEO_SUFFIXES, Footage, footage_below, is_footage
from ds_trainer.tasks.sign.extraction.holistic import keypoints_of
from ds_trainer.tasks.sign.folders import found_below, is_folder
from ds_trainer.tasks.sign.readers.clip_file import SUFFIXES, is_clip_file, load_clips
from ds_trainer.tasks.sign.readers.openpose import is_openpose
from ds_trainer.tasks.sign.store import ClipStore, is_store

EXPECTED = ", ".join((*SUFFIXES, *VIDEO_SUFFIXES))

Frames = NDArray[np.float32]


def clips_in(path: Path) -> Iterator[tuple[str, Frames | DataError]]:
    """The clips of a file, or of all files below a folder, each with its name; what cannot be read in a clip's place.

    A folder with images or OpenPose's JSON right in it is one clip, a file a frame. An `.npz` holds one array [frames,
    keypoints, features] a clip, or packed clips (`frames`, `offsets`). A clip store has names for its clips.
    """
    try:
        if not is_folder(path) or is_footage(path) or is_openpose(path):
            yield from _clips_of_file(path)
        elif _is_store(path):
            yield from _clips_of_store(path)
        else:
            yield from _clips_below(path)
    except DataError as error:
        yield str(path), error


def _clips_below(folder: Path) -> Iterator[tuple[str, Frames | DataError]]:
    """What can be read comes first; raises `DataError` for what cannot be looked into."""
    found: list[Path] = []
    refused: DataError | None = None
    for below in (found_below(folder, _is_of_clips), footage_below(folder)):
        try:
            for file in below:
                found.append(file)
        except DataError as error:
            refused = error
    for file in sorted(found):
        yield from clips_in(file)
    if refused is not None:
        raise refused
    if not found:
        raise DataError(f"{folder}: found no file of {EXPECTED}, expected at least one")


def _is_of_clips(path: Path) -> bool:
    return is_clip_file(path) or _is_store(path)


def _is_store(path: Path) -> bool:
    with looking_at(path, DataError):
        return is_store(path)


def _clips_of_store(path: Path) -> Iterator[tuple[str, Frames]]:
    """One at a time: a store may be larger than memory."""
    store = ClipStore.open(path)
    for name, (first, end) in zip(store.clip_ids.tolist(), itertools.pairwise(store.offsets.tolist()), strict=True):
        yield f"{path}:{name}", store.read(np.arange(first, end))


def _clips_of_file(path: Path) -> Iterator[tuple[str, Frames]]:
    if is_footage(path):
        yield str(path), _keypoints_of(path)
        return
    for name, frames in load_clips(path).items():
        yield f"{path}:{name}" if name else str(path), frames


def _keypoints_of(path: Path) -> Frames:
    """The keypoints of a video, or of a folder with an image a frame."""
    footage = Footage(path)
    keypoints = keypoints_of(footage, has_bar=True)
    complain(footage.problems)
    return keypoints
