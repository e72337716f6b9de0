"""Keypoints in the image or the room -> keypoints relative to the body, so that people and cameras compare.

The origin is the body's centre and the unit its size (for most layouts the middle between the shoulders and their
distance), both averaged over the clip, so that movement of the whole body stays. Where the depth is measured, the body
is turned about the vertical axis until its shoulders, on average over the clip, face the camera: from the first to the
second keypoint of `scale` they then point along +x, so that a camera whose x grows to the signer's left sees all bodies
of its data set from behind, and alike. A part with a root of its own, such as a hand with its wrist, is seen from there
and in units of its own size: its place is known from the body's keypoint for that wrist.

A clip that shows a left hand where others show a right one is mirrored. A keypoint whose coordinates are all exactly 0
is missing, and stays 0.

Axes: B clips, T frames, K keypoints, C features, D coordinates (the first of the features).
"""

import torch
from torch import Tensor

from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.mirror import right_handed
from ds_trainer.tasks.sign.on_device import picked
from ds_trainer.tasks.sign.presence import presence

_LEAST_SIZE = 1e-6
_HAIR = 1e-6  # of the body's size: less than anything measures


def normalise(
    clips_BTKC: Tensor,
    layout: KeypointLayout,
    depth_weight: float,
    is_mirrored_B: Tensor | None,
    mirrors_left_handed: bool,
) -> Tensor:
    """Clips with body-relative coordinates; features that are no coordinates are kept. float[B, T, K, C].

    Args:
        depth_weight: factor on the third coordinate, once a body faces the camera and before sizes are taken. Estimated
            from one camera it is mostly noise, and noise in it would spread to all coordinates through the size.
        is_mirrored_B: bool[B], the clips of which the mirror image is wanted, as training draws them; None: none.
        mirrors_left_handed: whether clips of the left hand are seen in a mirror.
    """
    clips_BTKC = right_handed(clips_BTKC, layout, is_mirrored_B, mirrors_left_handed)
    points_BTKD = clips_BTKC[..., : layout.num_coordinates]
    present_BTK1 = presence(points_BTKD)
    points_BTKD -= _centre(points_BTKD, present_BTK1, layout)
    points_BTKD *= present_BTK1
    if layout.is_metric:
        _face_camera(points_BTKD, present_BTK1, layout)
    if layout.num_coordinates == 3 and depth_weight != 1:
        points_BTKD[..., 2] *= depth_weight
    local = {part: _from_root(points_BTKD, present_BTK1, layout, part) for part in layout.part_roots}
    points_BTKD /= _body_size(points_BTKD, present_BTK1, layout)
    if len(layout.centre) == 1:
        _keep_off_origin(points_BTKD, present_BTK1, layout.centre[0])
    for part, local_BTkD in local.items():
        points_BTKD[:, :, picked(layout.parts[part], points_BTKD.device)] = local_BTkD
    return clips_BTKC


def _from_root(points_BTKD: Tensor, present_BTK1: Tensor, layout: KeypointLayout, part: str) -> Tensor:
    """A part as it is seen from its own root, in units of its own size: float[B, T, k, D]."""
    own, root = picked(layout.parts[part], points_BTKD.device), layout.part_roots[part]
    root_BT1D, has_root_BT11 = points_BTKD[:, :, root : root + 1], present_BTK1[:, :, root : root + 1]
    local_BTkD = (points_BTKD[:, :, own] - root_BT1D) * (present_BTK1[:, :, own] * has_root_BT11)
    return local_BTkD / _mean_size(local_BTkD)


def _face_camera(centred_BTKD: Tensor, present_BTK1: Tensor, layout: KeypointLayout) -> None:
    """Turn each clip, in place, about the vertical axis, until the line of its scale lies along x on average."""
    if layout.scale is None or layout.num_coordinates < 3:
        return
    across_B3 = _across(centred_BTKD, present_BTK1, layout.scale)[0].sum(1)
    length_B = across_B3[:, ::2].norm(dim=-1)
    is_known_B = length_B > _LEAST_SIZE
    cosine_B, sine_B = (across_B3[:, axis] / length_B.clamp(min=_LEAST_SIZE) for axis in (0, 2))
    cosine_B11, sine_B11 = (
        torch.where(is_known_B, cosine_B, 1.0)[:, None, None],
        torch.where(is_known_B, sine_B, 0.0)[:, None, None],
    )
    x_BTK, z_BTK = centred_BTKD[..., 0].clone(), centred_BTKD[..., 2].clone()
    centred_BTKD[..., 0] = x_BTK * cosine_B11 + z_BTK * sine_B11
    centred_BTKD[..., 2] = z_BTK * cosine_B11 - x_BTK * sine_B11


def _centre(points_BTKD: Tensor, present_BTK1: Tensor, layout: KeypointLayout) -> Tensor:
    """float[B, 1, 1, D]: of the body, or of what a clip shows that does not show that."""
    shown_B11D = _mean_present(points_BTKD, present_BTK1)
    if not layout.centre:
        return shown_B11D
    own = picked(layout.centre, points_BTKD.device)
    # Each counts alike: while a shoulder is out of sight, the origin does not move to the other one. Weighted before
    # they are picked, points lie in memory as they did without weights, and where none is missing add up to the same.
    num_present_B1K1 = present_BTK1.sum(1, keepdim=True)
    most_B111 = num_present_B1K1[:, :, own].amax(2, keepdim=True)
    weight_BTK1 = present_BTK1 * (most_B111 / num_present_B1K1.clamp(min=1))
    middle_B11D = _mean_present((points_BTKD * weight_BTK1)[:, :, own], weight_BTK1[:, :, own])
    return torch.where(most_B111 > 0, middle_B11D, shown_B11D)


def _keep_off_origin(points_BTKD: Tensor, present_BTK1: Tensor, keypoint: int) -> None:
    """Move one that is all of the centre by a hair, in place, where it lies there: it would count as missing.

    Of two shoulders one lies there, too, in a clip of one frame that lacks the other: eleven operations a batch for it
    are not worth it.
    """
    lone_BTD = points_BTKD[:, :, keypoint]
    is_at_origin_BT1 = (lone_BTD == 0).all(-1, keepdim=True)
    lone_BTD[..., -1:] += _HAIR * present_BTK1[:, :, keypoint] * is_at_origin_BT1


def _body_size(centred_BTKD: Tensor, present_BTK1: Tensor, layout: KeypointLayout) -> Tensor:
    """float[B, 1, 1, 1]: of the body, or of what a clip shows that never shows both ends of its scale."""
    shown_B111 = _mean_size(centred_BTKD)
    if layout.scale is None:
        return shown_B111
    across_BTD, both_BT1 = _across(centred_BTKD, present_BTK1, layout.scale)
    total_B11 = across_BTD.norm(dim=-1, keepdim=True).sum(1, keepdim=True)
    size_B11 = total_B11 / both_BT1.sum(1, keepdim=True).clamp(min=1)
    return torch.where(size_B11[..., None] > _LEAST_SIZE, size_B11[..., None], shown_B111)


def _across(points_BTKD: Tensor, present_BTK1: Tensor, scale: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """From one end of the scale to the other, 0 where one is missing [B, T, D]; whether both are there [B, T, 1]."""
    one, other = scale
    both_BT1 = present_BTK1[:, :, one] * present_BTK1[:, :, other]
    return (points_BTKD[:, :, other] - points_BTKD[:, :, one]) * both_BT1, both_BT1


def _mean_present(points_BTKD: Tensor, present_BTK1: Tensor) -> Tensor:
    """Mean over frames and present keypoints, of which missing ones are 0: [B, 1, 1, D]; 0 where none is present.

    Or of points that are weighted, and their weights.
    """
    num_present_B111 = present_BTK1.sum((1, 2), keepdim=True).clamp(min=1)
    return points_BTKD.sum((1, 2), keepdim=True) / num_present_B111


def _mean_size(points_BTKD: Tensor) -> Tensor:
    """Root mean square distance from the origin, over the points away from it: [B, 1, 1, 1], never 0."""
    squared_BTK1 = points_BTKD.square().sum(-1, keepdim=True)
    num_off_origin_B111 = squared_BTK1.sign().sum((1, 2), keepdim=True).clamp(min=1)  # a third of the time of > 0
    size_B111 = (squared_BTK1.sum((1, 2), keepdim=True) / num_off_origin_B111).sqrt()
    return torch.where(size_B111 > _LEAST_SIZE, size_B111, 1.0)
