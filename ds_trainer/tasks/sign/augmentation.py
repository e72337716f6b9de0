"""Whole batches of normalised clips, seen as other people might have signed them. Runs where the batch is.

Axes: B clips, T frames, K keypoints, C features, D coordinates (the first of the features).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ds_trainer.randomness import Draw
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.normalisation import presence


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
            is_mirrored_B = draw.uniform("mirror")[:, 0] < self.mirror_fraction
            clips_BTKC = mirrored(clips_BTKC, layout, is_mirrored_B)
        if layout.num_coordinates < 2:
            return clips_BTKC  # features of which nothing is known: there is no plane to rotate in
        radians = math.radians(self.max_rotation_degrees)
        angle_B = draw.between("rotation", -radians, radians)[:, 0]
        scale_B = draw.between("scale", 1 - self.max_scale_fraction, 1 + self.max_scale_fraction)[:, 0]
        shift_BD = draw.between("shift", -self.max_shift, self.max_shift, layout.num_coordinates)
        return transformed(clips_BTKC, layout, angle_B, scale_B, shift_BD)


def mirrored(clips_BTKC: Tensor, layout: KeypointLayout, is_mirrored_B: Tensor | None = None) -> Tensor:
    """The mirror image: x turned round, and each keypoint taken from its partner on the other side of the body.

    Both belong together: with x alone, the right hand would stand where the model looks for the left one.

    Args:
        is_mirrored_B: bool[B], the clips to mirror; None: all.
    """
    if is_mirrored_B is None:
        is_mirrored_B = torch.ones(len(clips_BTKC), dtype=torch.bool, device=clips_BTKC.device)
    itself_K = torch.arange(layout.num_keypoints, device=clips_BTKC.device)
    source_BK = torch.where(is_mirrored_B[:, None], torch.tensor(layout.mirror, device=clips_BTKC.device), itself_K)
    # Features in front, as they lie in memory after `normalise`.
    clips_CBTK = clips_BTKC.movedim(-1, 0)
    mirrored_BTKC = clips_CBTK.gather(-1, source_BK[:, None].expand_as(clips_CBTK)).movedim(0, -1)
    mirrored_BTKC[..., 0] *= 1 - 2 * is_mirrored_B[:, None, None].to(clips_BTKC.dtype)
    return mirrored_BTKC


def transformed(
    clips_BTKC: Tensor, layout: KeypointLayout, angle_B: Tensor, scale_B: Tensor, shift_BD: Tensor
) -> Tensor:
    """Rotate about the viewing axis, scale, then shift; `angle_B` in radians.

    Parts that are seen from a root of their own are not shifted: their root is their origin.
    """
    present_BTK1 = presence(clips_BTKC[..., : layout.num_coordinates])
    changed_BTKC = clips_BTKC.clone()
    moved_BTKD = changed_BTKC[..., : layout.num_coordinates]
    moved_BTKD *= scale_B[:, None, None, None]
    x_BTK, y_BTK = clips_BTKC[..., 0], clips_BTKC[..., 1]
    cosine_B11, sine_B11 = ((scale_B * side_B)[:, None, None] for side_B in (angle_B.cos(), angle_B.sin()))
    torch.addcmul(x_BTK * cosine_B11, y_BTK, sine_B11, value=-1, out=moved_BTKD[..., 0])
    torch.addcmul(y_BTK * cosine_B11, x_BTK, sine_B11, out=moved_BTKD[..., 1])
    moves_K = torch.ones(layout.num_keypoints, device=clips_BTKC.device)
    for part in layout.part_roots:
        moves_K[list(layout.parts[part])] = 0
    shift_DB1K = shift_BD.T[:, :, None, None] * moves_K
    moved_BTKD += shift_DB1K.movedim(0, -1)
    moved_BTKD *= present_BTK1
    return changed_BTKC
