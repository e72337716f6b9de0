"""Writes small data sets in each format that the readers know, as other programs would."""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from pyarrow import parquet

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.clips import ClipSource, RawClip
from ds_trainer.tasks.sign.store import ClipStore

KARSL_SHAPE = (184, 4)

BuildStore = Callable[..., ClipStore]


def frames(num_frames: int, shape: Sequence[int] = (20, 3), seed: int = 0) -> np.ndarray:
    """Frames that differ from clip to clip and hold no zeros."""
    return np.random.default_rng(seed).uniform(0.1, 1.0, (num_frames, *shape)).astype(np.float32)


def source(clips: Iterable[RawClip | DataError], num_signs: int = 3, **known: Any) -> ClipSource:
    listed = list(clips)
    return ClipSource("a test", len(listed), num_signs, iter(listed), **known)


def grid(signs: int, signers: int, repetitions: int, split_of: Mapping[int, str] | None = None) -> list[RawClip]:
    """`repetitions` clips of each sign by each signer; `split_of` maps a signer's number to its split."""
    return [
        RawClip(
            frames(2 + repetition, seed=100 * sign + 10 * signer + repetition),
            sign,
            f"s{signer:02}",
            (split_of or {}).get(signer, ""),
            f"{sign}_{signer}_{repetition}",
            "grid",
        )
        for sign in range(1, signs + 1)
        for signer in range(1, signers + 1)
        for repetition in range(repetitions)
    ]


def write_karsl(folder: Path, lengths: Mapping[tuple[str, str, int], Sequence[int]]) -> None:
    """The KArSL layout; `lengths` maps (signer, split, sign) to the lengths of its videos."""
    for (signer, split, sign), of_videos in lengths.items():
        sub_folder = folder / f"{signer}-{split}"
        sub_folder.mkdir(parents=True, exist_ok=True)
        videos = {f"video_{n}": frames(length, KARSL_SHAPE, sign + n) for n, length in enumerate(of_videos)}
        np.savez(sub_folder / f"{sign:04}.npz", **videos)


def write_karsl_packed(folder: Path, split: str, lengths: dict[int, dict[int, list[Any]]]) -> np.ndarray:
    """The packed form of a split; gives all its frames."""
    flat = [
        (sign, int(n)) for sign, of_signers in lengths.items() for of_clips in of_signers.values() for n in of_clips
    ]
    everything = frames(sum(length for _, length in flat), KARSL_SHAPE)
    everything.tofile(folder / f"{split}_X.mmap")
    np.save(folder / f"{split}_X_shape.npy", everything.shape)
    np.savez_compressed(folder / f"{split}_y.npz", np.array([sign for sign, _ in flat]) - 1)
    np.save(folder / f"{split}_X_map_samples_lens.npy", lengths)  # type: ignore[arg-type] # pickled, as in the wild
    return everything


def packed_arrays(**changed: Any) -> dict[str, Any]:
    """The arrays of three packed clips of two signs, some of them changed; None leaves one out."""
    arrays = {
        "frames": frames(9),
        "offsets": np.array([0, 2, 5, 9]),
        "y": np.array([0, 1, 1]),
        "label_names": np.array(["hello", "world"]),
        "signer": np.array(["ann", "ann", "bob"]),
        "ids": np.array(["a", "b", "c"]),
    }
    return {name: array for name, array in (arrays | changed).items() if array is not None}


def write_index(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, frames_TKC: np.ndarray, first_frame: int = 20) -> None:
    """A clip as the Google contest of isolated signs has it: two keypoints of the pose behind those of a face."""
    num_frames, num_keypoints, _ = frames_TKC.shape
    frame_TK, keypoint_TK = np.indices((num_frames, num_keypoints))
    is_pose_TK = keypoint_TK >= num_keypoints - 2
    columns = {
        "frame": (frame_TK + first_frame).astype(np.int16),
        "row_id": np.arange(frame_TK.size).astype(str),
        "type": np.where(is_pose_TK, "pose", "face"),
        "landmark_index": np.where(is_pose_TK, keypoint_TK - num_keypoints + 2, keypoint_TK).astype(np.int16),
        **{name: frames_TKC[..., number].astype(np.float64) for number, name in enumerate("xyz")},
    }
    parquet.write_table(pyarrow.table({name: column.ravel() for name, column in columns.items()}), path)


def signers(store: ClipStore, clips: np.ndarray) -> set[str]:
    return {store.signer_names[signer] for signer in store.signer[clips]}


def person(frame_KC: np.ndarray) -> dict[str, list[float]]:
    """One person of 67 or 137 keypoints as OpenPose lists one."""
    keys = ("pose_keypoints_2d", "face_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d")
    parts = np.split(frame_KC, np.cumsum([25, len(frame_KC) - 67, 21]))
    return {key: part.astype(float).ravel().tolist() for key, part in zip(keys, parts, strict=True)}


def write_frames(folder: Path, people_of: Sequence[Sequence[Any]], numbers: Sequence[int] = ()) -> None:
    """A clip as OpenPose writes it, with these people in each of its frames."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, people in zip(numbers or range(1, 1 + len(people_of)), people_of, strict=True):
        (folder / f"v_{number}_keypoints.json").write_text(json.dumps({"version": 1.3, "people": people}))
