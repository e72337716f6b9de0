"""How clips lie in memory while they are prepared: each feature by itself.

Axes: B clips, T frames, K keypoints, C features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def planar(clips_BTKC: Tensor) -> Tensor:
    """A copy in which each feature lies in memory by itself, so that what is done to each runs over neighbours.

    Between features, four to a keypoint, a processor's vectors would be used by three quarters, or not at all.
    """
    return clips_BTKC.movedim(-1, 0).clone(memory_format=torch.contiguous_format).movedim(0, -1)


def picked(keypoints: Sequence[int]) -> slice | list[int]:
    """What picks keypoints from an axis: a slice, which copies nothing, where they follow one another."""
    first, last = keypoints[0], keypoints[-1]
    return slice(first, last + 1) if list(keypoints) == list(range(first, last + 1)) else list(keypoints)
