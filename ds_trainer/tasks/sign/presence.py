"""Which keypoints are there: one whose coordinates are all exactly 0 is missing.

Axes: B clips, T frames, K keypoints, D coordinates.
"""

from torch import Tensor


def presence(points_BTKD: Tensor) -> Tensor:
    """float[B, T, K, 1]: 1 for keypoints that are there, 0 for missing ones."""
    return (points_BTKD.abs().amax(-1, keepdim=True) > 0).to(points_BTKD.dtype)
