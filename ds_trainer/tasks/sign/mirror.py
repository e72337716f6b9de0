"""Clips seen in a mirror, and left-handed signers, who are seen like others in one.

Axes: B clips, T frames, K keypoints, C features.
"""

import torch
from torch import Tensor

from ds_trainer.tasks.sign.handedness import is_left_handed
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.on_device import index_on
from ds_trainer.tasks.sign.planar import planar


def right_handed(
    clips_BTKC: Tensor, layout: KeypointLayout, is_mirrored_B: Tensor | None, mirrors_left_handed: bool
) -> Tensor:
    """A planar copy, clips mirrored in which the left hand does more than twice as much as the right.

    A left-handed signer's right hand rests outside the image, or is not found. One of 16 recordings of the embedded
    default data is of such a signer.

    Args:
        is_mirrored_B: bool[B], the clips to mirror besides, or back; None: none.
        mirrors_left_handed: False: these alone.
    """
    if not layout.num_coordinates:
        return planar(clips_BTKC)
    is_left_B = is_left_handed(clips_BTKC, layout) if mirrors_left_handed else None
    if is_left_B is not None:
        is_mirrored_B = is_left_B if is_mirrored_B is None else is_left_B ^ is_mirrored_B
    # Once, and for all clips, though few may need it: to ask whether any does would wait for the device.
    return planar(clips_BTKC) if is_mirrored_B is None else mirrored(clips_BTKC, layout, is_mirrored_B)


def mirrored(clips_BTKC: Tensor, layout: KeypointLayout, is_mirrored_B: Tensor | None = None) -> Tensor:
    """The mirror image: x turned round, and each keypoint taken from its partner on the other side of the body.

    Both belong together: with x alone, the right hand would stand where the model looks for the left one.

    Args:
        is_mirrored_B: bool[B], the clips to mirror; None: all.
    """
    if is_mirrored_B is None:
        is_mirrored_B = torch.ones(len(clips_BTKC), dtype=torch.bool, device=clips_BTKC.device)
    itself_K = torch.arange(layout.num_keypoints, device=clips_BTKC.device)
    source_BK = torch.where(is_mirrored_B[:, None], index_on(layout.mirror, clips_BTKC.device), itself_K)
    # Features in front: the result is planar.
    clips_CBTK = clips_BTKC.movedim(-1, 0)
    mirrored_BTKC = clips_CBTK.gather(-1, source_BK[:, None].expand_as(clips_CBTK)).movedim(0, -1)
    mirrored_BTKC[..., 0] *= 1 - 2 * is_mirrored_B[:, None, None].to(clips_BTKC.dtype)
    return mirrored_BTKC
