"""The 20 joints of a Kinect skeleton, in the orders that recordings have.

Which it is can be seen: in the right order bones are short.

Axes: N frames, K keypoints, D coordinates.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ds_trainer.tasks.sign.layout import LOWER_BODY, KeypointLayout

_SDK_ORDER = (11, 10, 1, 0, 2, 4, 6, 8, 3, 5, 7, 9, 12, 14, 16, 18, 13, 15, 17, 19)
"""Hips, spine, neck, head, left arm, right arm, left leg, right leg, by their numbers in `kinect_20`: the order of
Microsoft's SDK 1.8 (NUI_SKELETON_POSITION_INDEX), which its samples and MATLAB write."""


_CLEARLY = 0.75


def kinect_20(features: tuple[str, ...]) -> KeypointLayout:
    """The order of isl-kinect30; even arm joints are the left arm's, odd ones the right arm's.

    Told by motion there: the hand at 9 moves 1.5 to 2 times as much as that at 8 in all 10 signers. Hands are single
    joints here, so no part has an origin of its own.
    """
    return KeypointLayout(
        name="kinect_20",
        features=features,
        parts={
            "head": (0, 1),
            "left_arm": (2, 4, 6, 8),
            "right_arm": (3, 5, 7, 9),
            LOWER_BODY: tuple(range(10, 20)),
        },
        mirror=(0, 1, 3, 2, 5, 4, 7, 6, 9, 8, 10, 11, 13, 12, 15, 14, 17, 16, 19, 18),
        centre=(2, 3),
        scale=(2, 3),
        parents=(1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 1, 10, 11, 11, 12, 13, 14, 15, 16, 17),
        is_metric=len(features) >= 3,
    )


def kinect_sdk_20(features: tuple[str, ...]) -> KeypointLayout:
    """The order of Microsoft's SDK."""
    return replace(kinect_20(features).only(_SDK_ORDER), name="kinect_sdk_20")


def in_order(features: tuple[str, ...], frames_NKC: NDArray[np.float32]) -> KeypointLayout:
    """That of the SDK where the bones of some frames are clearly shorter in it: less than half as long, of bodies."""
    usual, other = kinect_20(features), kinect_sdk_20(features)
    is_other = _bone_length(frames_NKC, other) < _CLEARLY * _bone_length(frames_NKC, usual)
    return other if is_other else usual


def _bone_length(frames_NKC: NDArray[np.float32], layout: KeypointLayout) -> float:
    points_NKD = frames_NKC[..., : layout.num_coordinates]
    one, other = np.transpose(layout.bones)
    is_there_NK = (points_NKD != 0).any(-1)
    is_there_Nk = is_there_NK[:, one] & is_there_NK[:, other]
    lengths_Nk = np.linalg.norm(points_NKD[:, one] - points_NKD[:, other], axis=-1)
    return float(lengths_Nk[is_there_Nk].mean()) if is_there_Nk.any() else 0.0
