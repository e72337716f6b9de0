"""Keypoints in the image or the room -> keypoints relative to the body, so that people and cameras compare.

The origin is the body's centre and the unit its size (for most layouts the middle between the shoulders and their
distance), both averaged over the clip, so that movement of the whole body stays. A part with a root of its own, such as
a hand with its wrist, is seen from there and in units of its own size: its place is known from the body's keypoint for
that wrist.

A keypoint whose coordinates are all exactly 0 is missing, and stays 0.

Axes: B clips, T frames, K keypoints, C features, D coordinates (the first of the features).
"""

import torch
from torch import Tensor

from ds_trainer.tasks.sign.layout import KeypointLayout

_LEAST_SIZE = 1e-6


def normalise(clips_BTKC: Tensor, layout: KeypointLayout, depth_weight: float = 1.0) -> Tensor:
    """Clips with body-relative coordinates; features that are no coordinates are kept. float[B, T, K, C].

    Args:
        depth_weight: factor on the third coordinate, before sizes are taken. Estimated from one camera it is mostly
            noise, and noise in it would spread to all coordinates through the size.
    """
    num_coordinates = layout.num_coordinates
    points_BTKD = clips_BTKC[..., :num_coordinates]
    if num_coordinates == 3 and depth_weight != 1:
        points_BTKD = points_BTKD * torch.tensor([1.0, 1.0, depth_weight], device=clips_BTKC.device)
    present_BTK1 = (points_BTKD != 0).any(-1, keepdim=True)
    rooted = {part: layout.parts[part] for part in layout.part_roots}
    normalised_BTKD = _from_body(points_BTKD, present_BTK1, layout)
    for part, keypoints in rooted.items():
        index = torch.tensor(keypoints, device=clips_BTKC.device)
        root = layout.part_roots[part]
        local_BTkD = points_BTKD[:, :, index] - points_BTKD[:, :, root : root + 1]
        local_BTkD = local_BTkD * present_BTK1[:, :, index] * present_BTK1[:, :, root : root + 1]
        normalised_BTKD[:, :, index] = local_BTkD / _mean_size(local_BTkD)
    return torch.cat([normalised_BTKD, clips_BTKC[..., num_coordinates:]], dim=-1)


def _from_body(points_BTKD: Tensor, present_BTK1: Tensor, layout: KeypointLayout) -> Tensor:
    centre_B11D = _mean_present(points_BTKD, present_BTK1)
    if layout.centre:
        centre = torch.tensor(layout.centre, device=points_BTKD.device)
        shown_B111 = present_BTK1[:, :, centre].any(2, keepdim=True).any(1, keepdim=True)
        known_B11D = _mean_present(points_BTKD[:, :, centre], present_BTK1[:, :, centre])
        centre_B11D = torch.where(shown_B111, known_B11D, centre_B11D)  # else a clip is centred by what it shows
    centred_BTKD = (points_BTKD - centre_B11D) * present_BTK1
    if layout.scale is None:
        return centred_BTKD / _mean_size(centred_BTKD)
    one, other = layout.scale
    both_BT1 = present_BTK1[:, :, one] & present_BTK1[:, :, other]
    distance_BT1 = (points_BTKD[:, :, one] - points_BTKD[:, :, other]).norm(dim=-1, keepdim=True)
    size_B11 = (distance_BT1 * both_BT1).sum(1, keepdim=True) / both_BT1.sum(1, keepdim=True).clamp(min=1)
    known_B11 = size_B11 > _LEAST_SIZE  # a clip that never shows both ends is scaled by what it shows
    size_B111 = torch.where(known_B11[..., None], size_B11[..., None], _mean_size(centred_BTKD))
    return centred_BTKD / size_B111


def _mean_present(points_BTKD: Tensor, present_BTK1: Tensor) -> Tensor:
    """Mean over frames and present keypoints: [B, 1, 1, D]; 0 where none is present."""
    num_present_B111 = present_BTK1.sum((1, 2), keepdim=True).clamp(min=1)
    return (points_BTKD * present_BTK1).sum((1, 2), keepdim=True) / num_present_B111


def _mean_size(points_BTKD: Tensor) -> Tensor:
    """Root mean square distance from the origin, over the points away from it: [B, 1, 1, 1], never 0."""
    squared_BTK1 = points_BTKD.square().sum(-1, keepdim=True)
    num_off_origin_B111 = (squared_BTK1 > 0).sum((1, 2), keepdim=True).clamp(min=1)
    size_B111 = (squared_BTK1.sum((1, 2), keepdim=True) / num_off_origin_B111).sqrt()
    return torch.where(size_B111 > _LEAST_SIZE, size_B111, 1.0)
