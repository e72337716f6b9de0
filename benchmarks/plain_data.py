"""The data path as one would write it without ds_trainer: clip by clip, in numpy.

The same arithmetic as `ds_trainer.tasks.sign`: resample to a fixed number of frames, put the body (and each hand) at
the origin and to unit size, mirror some clips, rotate, scale and shift all.

Axes: T frames, K keypoints, C features, D coordinates (the first of the features).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

Clip = NDArray[np.float32]
Layout = dict[str, Any]
_LEAST_SIZE = 1e-6


def resampled(frames_TKC: Clip, within_T: NDArray[np.float64]) -> Clip:
    """One frame of each of `len(within_T)` equal bins of time; `within_T` in [0, 1) says where in its bin."""
    num_samples = len(within_T)
    place_T = (np.arange(num_samples) + within_T) / num_samples * len(frames_TKC)
    return np.asarray(frames_TKC[place_T.astype(np.int64)])


def normalised(clip_TKC: Clip, layout: Layout) -> Clip:
    """Coordinates relative to the body, those of each hand to its wrist; missing keypoints stay 0."""
    num_coordinates = _num_coordinates(layout)
    points_TKD = clip_TKC[..., :num_coordinates]
    is_present_TK = (points_TKD != 0).any(-1)
    result = clip_TKC.copy()
    result[..., :num_coordinates] = _from_body(points_TKD, is_present_TK, layout)
    for part, root in layout["part_roots"].items():
        keypoints = layout["parts"][part]
        local_TkD = points_TKD[:, keypoints] - points_TKD[:, root : root + 1]
        local_TkD *= (is_present_TK[:, keypoints] & is_present_TK[:, root : root + 1])[..., None]
        result[:, keypoints, :num_coordinates] = local_TkD / _mean_size(local_TkD)
    return result


def _from_body(points_TKD: Clip, is_present_TK: NDArray[np.bool_], layout: Layout) -> Clip:
    centre_keypoints = layout["centre"]
    is_shown = is_present_TK[:, centre_keypoints]
    is_known = bool(centre_keypoints) and bool(is_shown.any())
    known = points_TKD[:, centre_keypoints][is_shown] if is_known else points_TKD[is_present_TK]
    centre_D = known.mean(0) if len(known) else np.zeros(points_TKD.shape[-1], np.float32)
    centred_TKD = (points_TKD - centre_D) * is_present_TK[..., None]
    if layout["scale"] is None:
        return np.asarray(centred_TKD / _mean_size(centred_TKD), np.float32)
    one, other = layout["scale"]
    is_both_T = is_present_TK[:, one] & is_present_TK[:, other]
    distance_T = np.linalg.norm(points_TKD[:, one] - points_TKD[:, other], axis=-1)
    size = distance_T[is_both_T].mean() if is_both_T.any() else 0.0
    return np.asarray(centred_TKD / (size if size > _LEAST_SIZE else _mean_size(centred_TKD)), np.float32)


def _mean_size(points_TKD: Clip) -> np.float32:
    squared_TK = np.square(points_TKD).sum(-1)
    size = np.sqrt(squared_TK.sum() / max((squared_TK > 0).sum(), 1))
    return np.float32(size if size > _LEAST_SIZE else 1.0)


def mirrored(clip_TKC: Clip, layout: Layout) -> Clip:
    """The mirror image: x turned round, each keypoint taken from its partner on the other side of the body."""
    clip_TKC = clip_TKC[:, layout["mirror"]]
    clip_TKC[..., 0] *= -1
    return clip_TKC


def transformed(clip_TKC: Clip, layout: Layout, angle: float, scale: float, shift_D: Clip) -> Clip:
    """Rotated in the image plane, scaled, then shifted, except for parts that have an origin of their own."""
    num_coordinates = _num_coordinates(layout)
    points_TKD = clip_TKC[..., :num_coordinates]
    is_present_TK1 = (points_TKD != 0).any(-1, keepdims=True)
    matrix_DD = np.eye(num_coordinates, dtype=np.float32)
    matrix_DD[:2, :2] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    moves_K1 = np.ones((clip_TKC.shape[1], 1), np.float32)
    for part in layout["part_roots"]:
        moves_K1[layout["parts"][part]] = 0
    result = clip_TKC.copy()
    result[..., :num_coordinates] = (points_TKD @ (matrix_DD * scale) + shift_D * moves_K1) * is_present_TK1
    return result


def _num_coordinates(layout: Layout) -> int:
    return sum(feature in ("x", "y", "z") for feature in layout["features"])


def layout_of(store: Path) -> Layout:
    """The keypoint layout of a clip store."""
    layout: Layout = json.loads((store / "store.json").read_text())["layout"]
    return layout


class ClipDataset(Dataset[tuple[Tensor, int]]):
    """Augmented training clips, made one by one."""

    def __init__(self, store: Path, clip: NDArray[np.int64], sign_class: NDArray[np.int64], num_frames: int):
        self.layout = layout_of(store)
        self.frames = np.load(store / "frames.npy", mmap_mode="r")
        self.offsets = np.load(store / "index.npz")["offsets"]
        self.clip, self.sign_class, self.num_frames = clip, sign_class, num_frames
        self.rng = np.random.default_rng()

    def __len__(self) -> int:
        return len(self.clip)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        number, rng, layout = self.clip[place], self.rng, self.layout
        frames = self.frames[self.offsets[number] : self.offsets[number + 1]]
        clip = normalised(resampled(frames, rng.random(self.num_frames)), layout)
        if layout["mirror"] is not None and rng.random() < 0.5:
            clip = mirrored(clip, layout)
        angle, scale = np.radians(rng.uniform(-10, 10)), rng.uniform(0.9, 1.1)
        shift_D = rng.uniform(-0.1, 0.1, _num_coordinates(layout)).astype(np.float32)
        return torch.from_numpy(transformed(clip, layout, angle, scale, shift_D)), int(self.sign_class[place])
