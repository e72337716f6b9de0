"""Clips as skeletons that move, for pages: nothing here needs what draws plots, which training would pay for.

Axes: T frames, K keypoints, C features, D coordinates (the first of the features).
"""

import numpy as np
from numpy.typing import NDArray

from ds_trainer.task import Skeleton
from ds_trainer.tasks.sign.layout import KeypointLayout


def moving_skeleton(clip_TKC: NDArray[np.float32], layout: KeypointLayout) -> Skeleton:
    """A clip as it was recorded, float32[T, K, C], to be drawn as it moves."""
    points_TKD = clip_TKC[..., : max(2, layout.num_coordinates)]
    is_missing_TK1 = ~(points_TKD != 0).any(-1, keepdims=True)
    upright_TKD = points_TKD[..., :2] * np.array([1, -1 if layout.is_metric else 1], np.float32)
    return Skeleton(
        points_TKD=np.where(is_missing_TK1, np.float32(np.nan), upright_TKD),
        parts_K=layout.part_of,
        bones=layout.bones,
    )
