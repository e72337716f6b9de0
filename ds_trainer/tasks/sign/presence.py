"""Which keypoints are there, and what can be said of two that both are: one with all coordinates exactly 0 is missing.

Axes: B clips, T frames, K keypoints, D coordinates.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.on_device import index_on, kept_on_device


def presence(points_BTKD: Tensor) -> Tensor:
    """float[B, T, K, 1]: 1 for keypoints that are there, 0 for missing ones; without coordinates all are there."""
    if points_BTKD.shape[-1] == 0:
        return points_BTKD.new_ones((*points_BTKD.shape[:-1], 1))
    return _summed(coordinate_BTK.abs() for coordinate_BTK in points_BTKD.unbind(-1)).sign_()[..., None]


def lengths(vectors_BTKD: Tensor) -> Tensor:
    """float[B, T, K, 1]; by `norm` it takes ten times as long."""
    if vectors_BTKD.shape[-1] == 0:
        return vectors_BTKD.new_zeros((*vectors_BTKD.shape[:-1], 1))
    return _summed(coordinate_BTK.square() for coordinate_BTK in vectors_BTKD.unbind(-1)).sqrt_()[..., None]


def _summed(coordinates: Iterable[Tensor]) -> Tensor:
    """The sum, in place of the first. Each lies in memory by itself: a sum over the last axis takes twice as long."""
    total, *others = coordinates
    for other in others:
        total += other
    return total


def hanging_on(layout: KeypointLayout, device: torch.device) -> Tensor:
    """int64[k], the keypoints that hang on another, on the device."""
    return index_on(tuple(keypoint for keypoint, _ in layout.bones), device)


def bones(points_BTKD: Tensor, present_BTK1: Tensor, layout: KeypointLayout) -> Tensor:
    """The k keypoints that hang on another as seen from it; 0 where one is missing: float[B, T, k, D].

    Few of a face's do, so these alone are looked at. The root that a part is seen from lies at 0, like a missing one;
    where it is missing, so is the part.
    """
    links, device = tuple(layout.bones), points_BTKD.device
    over = index_on(tuple(parent for _, parent in links), device)
    hanging = hanging_on(layout, device)
    is_over_BTk1 = present_BTK1[:, :, over]
    if layout.part_roots:
        is_over_BTk1 = is_over_BTk1.maximum(_begins_at(tuple(layout.part_roots.values()), links, device))
    both_BTk1 = present_BTK1[:, :, hanging] * is_over_BTk1
    return (points_BTKD[:, :, hanging] - points_BTKD[:, :, over]) * both_BTk1


@kept_on_device
def _begins_at(roots: tuple[int, ...], bones: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """float[k, 1]: 1 for each bone that begins at one of `roots`."""
    return torch.tensor([[float(parent in roots)] for _, parent in bones], device=device)


def changes(points_BTKD: Tensor, present_BTK1: Tensor, lag: int) -> tuple[Tensor, Tensor]:
    """Each keypoint as seen from where it was `lag` frames before, and whether it is there in both frames.

    Returns:
        float[B, T - lag, K, D], 0 where it is missing in one of them, and float[B, T - lag, K, 1].
    """
    both_BTK1 = present_BTK1[:, lag:] * present_BTK1[:, :-lag]
    return (points_BTKD[:, lag:] - points_BTKD[:, :-lag]) * both_BTK1, both_BTK1
