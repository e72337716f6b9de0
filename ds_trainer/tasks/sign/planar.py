"""How clips lie in memory while they are prepared: each feature by itself.

Axes: B clips, T frames, K keypoints, C features.
"""

import torch
from torch import Tensor


def planar(clips_BTKC: Tensor) -> Tensor:
    """A copy in which each feature lies in memory by itself, so that what is done to each runs over neighbours.

    Between features, four to a keypoint, a processor's vectors would be used by three quarters, or not at all.
    """
    return clips_BTKC.movedim(-1, 0).clone(memory_format=torch.contiguous_format).movedim(0, -1)
