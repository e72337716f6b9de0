"""Whole batches of normalised clips, seen as other people might have signed them. Runs where the batch is.

Axes: B clips, T frames, K keypoints, C features, D coordinates (the first of the features).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ds_trainer.randomness import Draw
from ds_trainer.tasks.sign.layout import KeypointLayout


@dataclass(frozen=True)
class Augmentation:
    """How far clips are changed in training; drawn once a clip, so that its movement stays smooth.

    Args:
        mirror_fraction: of clips that are mirrored, as if signed with the other hand.
        max_rotation_degrees: largest rotation in the image plane, either way.
        max_scale_fraction: largest growth or shrinking, as a fraction.
        max_shift: largest shift along each coordinate, in units of the body's size.
    """

    mirror_fraction: float = 0.5
    max_rotation_degrees: float = 10.0
    max_scale_fraction: float = 0.1
    max_shift: float = 0.1

    def __call__(self, clips_BTKC: Tensor, layout: KeypointLayout, draw: Draw) -> Tensor:
        """Augmented clips, float[B, T, K, C]; missing keypoints stay missing."""
        if layout.mirror is not None and self.mirror_fraction > 0:
            is_mirrored_B111 = (draw.uniform("mirror") < self.mirror_fraction)[..., None, None]
            clips_BTKC = torch.where(is_mirrored_B111, mirrored(clips_BTKC, layout), clips_BTKC)
        if layout.num_coordinates < 2:
            return clips_BTKC  # features of which nothing is known: there is no plane to rotate in
        radians = math.radians(self.max_rotation_degrees)
        angle_B = draw.between("rotation", -radians, radians)[:, 0]
        scale_B = draw.between("scale", 1 - self.max_scale_fraction, 1 + self.max_scale_fraction)[:, 0]
        shift_BD = draw.between("shift", -self.max_shift, self.max_shift, layout.num_coordinates)
        return transformed(clips_BTKC, layout, angle_B, scale_B, shift_BD)


def mirrored(clips_BTKC: Tensor, layout: KeypointLayout) -> Tensor:
    """The mirror image: x turned round, and each keypoint taken from its partner on the other side of the body.

    Both belong together: with x alone, the right hand would stand where the model looks for the left one.
    """
    partners = torch.tensor(layout.mirror, device=clips_BTKC.device)
    sign_C = torch.ones(layout.num_features, device=clips_BTKC.device)
    sign_C[0] = -1
    return clips_BTKC[:, :, partners] * sign_C


def transformed(
    clips_BTKC: Tensor, layout: KeypointLayout, angle_B: Tensor, scale_B: Tensor, shift_BD: Tensor
) -> Tensor:
    """Rotate about the viewing axis, scale, then shift; `angle_B` in radians.

    Parts that are seen from a root of their own are not shifted: their root is their origin.
    """
    num_coordinates = layout.num_coordinates
    points_BTKD = clips_BTKC[..., :num_coordinates]
    present_BTK1 = (points_BTKD != 0).any(-1, keepdim=True)
    matrix_BDD = torch.eye(num_coordinates, device=clips_BTKC.device).repeat(len(clips_BTKC), 1, 1)
    cosine_B, sine_B = angle_B.cos(), angle_B.sin()
    matrix_BDD[:, 0, 0], matrix_BDD[:, 0, 1] = cosine_B, sine_B
    matrix_BDD[:, 1, 0], matrix_BDD[:, 1, 1] = -sine_B, cosine_B
    matrix_BDD = matrix_BDD * scale_B[:, None, None]
    moved_BTKD = (points_BTKD.flatten(1, 2) @ matrix_BDD).unflatten(1, points_BTKD.shape[1:3])
    moves_K1 = torch.ones(layout.num_keypoints, 1, device=clips_BTKC.device)
    for part in layout.part_roots:
        moves_K1[list(layout.parts[part])] = 0
    moved_BTKD = (moved_BTKD + shift_BD[:, None, None] * moves_K1) * present_BTK1
    return torch.cat([moved_BTKD, clips_BTKC[..., num_coordinates:]], dim=-1)
