"""Whole batches of normalised clips, seen as other people might have signed them. Runs where the batch is.

Each kind of change is a function of its own, drawn once a clip, so that its movement stays smooth; only masks differ
from frame to frame. Missing keypoints stay missing.

Axes: B clips, T frames, K keypoints, C features, D coordinates (the first of the features).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ds_trainer.randomness import Draw
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.on_device import index_on, kept_on_device
from ds_trainer.tasks.sign.presence import bones, hanging_on, presence


@dataclass(frozen=True)
class Augmentation:
    """How far clips are changed in training; not at all, unless it says so.

    Lengths are in units of the body's size; those of a part with a root of its own, such as a hand, in its own size.

    Args:
        mirror_fraction: of clips that are mirrored, as if signed with the other hand.
        max_rotation_degrees: largest rotation in the image plane, either way.
        max_scale_fraction: largest growth or shrinking, as a fraction.
        max_shift: largest shift of the body along each coordinate; what has a root of its own stays there.
        max_turn_degrees: largest rotation of the body about the vertical axis and about the line of its shoulders,
            either way, as if seen by another camera; where there is a depth.
        max_stretch_fraction: largest growth or shrinking along each coordinate by itself, as a fraction, before the
            body is turned.
        max_limb_fraction: largest growth or shrinking of each bone by itself, as a fraction; both sides alike.
        max_displacement: largest shift of each keypoint by itself.
        noise: standard deviation of what is added to each coordinate in each frame.
        keypoint_mask_fraction: of keypoints that are missing in the whole clip.
        part_mask_fraction: of body parts that are; a clip that would lose all keeps them.
        max_frame_mask_fraction: longest stretch of frames that is blank, as a fraction of the clip.
    """

    mirror_fraction: float = 0.0
    max_rotation_degrees: float = 0.0
    max_scale_fraction: float = 0.0
    max_shift: float = 0.0
    max_turn_degrees: float = 0.0
    max_stretch_fraction: float = 0.0
    max_limb_fraction: float = 0.0
    max_displacement: float = 0.0
    noise: float = 0.0
    keypoint_mask_fraction: float = 0.0
    part_mask_fraction: float = 0.0
    max_frame_mask_fraction: float = 0.0

    def mirrors(self, layout: KeypointLayout, draw: Draw) -> Tensor | None:
        """The clips to mirror, bool[B], which `normalise` does in passing; None: none."""
        if layout.mirror is None or self.mirror_fraction == 0:
            return None
        return draw.uniform("mirror")[:, 0] < self.mirror_fraction

    def __call__(
        self,
        clips_BTKC: Tensor,
        layout: KeypointLayout,
        draw: Draw,
        parts: Sequence[Sequence[int]],
        depth_weight: float,
    ) -> Tensor:
        """Augmented clips, float[B, T, K, C], all but mirrored; missing keypoints stay missing.

        Args:
            parts: the keypoints of each part that the model looks at.
            depth_weight: factor that the third coordinate has: turns are those of the body as it was before.
        """
        if layout.num_coordinates >= 2:  # of other features nothing is known: there is no plane to rotate in
            clips_BTKC = self._reshaped(clips_BTKC, layout, draw, depth_weight)
        return self._masked(clips_BTKC, draw, parts)

    def _reshaped(self, clips_BTKC: Tensor, layout: KeypointLayout, draw: Draw, depth_weight: float) -> Tensor:
        num_coordinates = layout.num_coordinates
        if self.max_limb_fraction > 0 and layout.bones:
            low, high = 1 - self.max_limb_fraction, 1 + self.max_limb_fraction
            clips_BTKC = with_limbs(clips_BTKC, layout, draw.between("limbs", low, high, layout.num_keypoints))
        shift_BD = draw.between("shift", -self.max_shift, self.max_shift, num_coordinates)
        offset_BKD = shift_BD[:, None] * movable(layout, clips_BTKC.device)
        if self.max_displacement > 0:
            columns = layout.num_keypoints * num_coordinates
            displaced = draw.between("displacement", -self.max_displacement, self.max_displacement, columns)
            offset_BKD = offset_BKD + displaced.view(offset_BKD.shape)
        matrix_BDD = self._matrix(draw, num_coordinates, depth_weight)
        is_in_plane = self.max_turn_degrees == 0 or depth_weight == 0
        clips_BTKC = transformed(clips_BTKC, layout, matrix_BDD, offset_BKD, is_in_plane)
        return clips_BTKC if self.noise == 0 else with_noise(clips_BTKC, layout, self.noise, draw)

    def _matrix(self, draw: Draw, num_coordinates: int, depth_weight: float) -> Tensor:
        """float[B, D, D]: rotations, and growth along each coordinate."""
        radians, turn = math.radians(self.max_rotation_degrees), math.radians(self.max_turn_degrees)
        matrix_BDD = rotation(draw.between("rotation", -radians, radians)[:, 0], (0, 1), num_coordinates)
        if num_coordinates == 3 and turn > 0 and depth_weight > 0:
            for name, plane in (("yaw", (2, 0)), ("pitch", (1, 2))):
                matrix_BDD = matrix_BDD @ rotation(draw.between(name, -turn, turn)[:, 0], plane, num_coordinates)
            if depth_weight != 1:
                matrix_BDD[:, :2, 2] /= depth_weight
                matrix_BDD[:, 2, :2] *= depth_weight
        growth_BD = draw.between("scale", 1 - self.max_scale_fraction, 1 + self.max_scale_fraction)
        if self.max_stretch_fraction > 0:
            low, high = 1 - self.max_stretch_fraction, 1 + self.max_stretch_fraction
            growth_BD = growth_BD * draw.between("stretch", low, high, num_coordinates)
        return matrix_BDD * growth_BD[:, None]

    def _masked(self, clips_BTKC: Tensor, draw: Draw, parts: Sequence[Sequence[int]]) -> Tensor:
        num_keypoints, device = clips_BTKC.shape[2], clips_BTKC.device
        if self.keypoint_mask_fraction > 0:
            is_masked_BK = draw.uniform("keypoints", num_keypoints) < self.keypoint_mask_fraction
            clips_BTKC = clips_BTKC.masked_fill(is_masked_BK[:, None, :, None], 0.0)
        if self.part_mask_fraction > 0:
            is_masked_BP = draw.uniform("parts", len(parts)) < self.part_mask_fraction
            is_masked_BP &= ~is_masked_BP.all(1, keepdim=True)
            number_of = {keypoint: number for number, part in enumerate(parts) for keypoint in part}
            # Of keypoints that no part has, the column behind the last.
            part_of = tuple(number_of.get(keypoint, len(parts)) for keypoint in range(num_keypoints))
            is_masked_BK = functional.pad(is_masked_BP, (0, 1))[:, index_on(part_of, device)]
            clips_BTKC = clips_BTKC.masked_fill(is_masked_BK[:, None, :, None], 0.0)
        if self.max_frame_mask_fraction > 0:
            length_B1 = self.max_frame_mask_fraction * draw.uniform("blank length")
            first_B1 = draw.uniform("blank from") * (1 - length_B1)
            place_T = torch.arange(clips_BTKC.shape[1], device=device) / clips_BTKC.shape[1]
            is_blank_BT = (place_T >= first_B1) & (place_T < first_B1 + length_B1)
            clips_BTKC = clips_BTKC.masked_fill(is_blank_BT[:, :, None, None], 0.0)
        return clips_BTKC


def rotation(angle_B: Tensor, plane: tuple[int, int], num_coordinates: int) -> Tensor:
    """Matrices float[B, D, D] that turn the first axis of `plane` towards the second; `angle_B` in radians."""
    matrix_BDD = torch.eye(num_coordinates, device=angle_B.device, dtype=angle_B.dtype).repeat(len(angle_B), 1, 1)
    one, other = plane
    matrix_BDD[:, one, one] = matrix_BDD[:, other, other] = angle_B.cos()
    matrix_BDD[:, other, one], matrix_BDD[:, one, other] = angle_B.sin(), -angle_B.sin()
    return matrix_BDD


def transformed(
    clips_BTKC: Tensor, layout: KeypointLayout, matrix_BDD: Tensor, offset_BKD: Tensor, is_in_plane: bool = False
) -> Tensor:
    """Each clip's points multiplied by its matrix, then shifted, each keypoint by its own offset.

    Args:
        is_in_plane: the matrices leave the third coordinate to itself.
    """
    points_BTKD = clips_BTKC[..., : layout.num_coordinates]
    present_BTK1 = presence(points_BTKD)
    changed_BTKC = torch.empty_like(clips_BTKC)
    changed_BTKC[..., layout.num_coordinates :] = clips_BTKC[..., layout.num_coordinates :]
    offset_DBK = offset_BKD.movedim(-1, 0).contiguous()
    for row in range(layout.num_coordinates):
        # Coordinate by coordinate, each of which lies in memory by itself: a product of matrices would lay out anew.
        moved_BTK = changed_BTKC[..., row]
        sum_BTK = offset_DBK[row, :, None]
        for column in _mixed_with(row, layout.num_coordinates, is_in_plane):
            factor_B11 = matrix_BDD[:, row, column, None, None]
            sum_BTK = torch.addcmul(sum_BTK, points_BTKD[..., column], factor_B11, out=moved_BTK)
    changed_BTKC[..., : layout.num_coordinates] *= present_BTK1
    return changed_BTKC


def _mixed_with(coordinate: int, num_coordinates: int, is_in_plane: bool) -> Sequence[int]:
    """The coordinates that a matrix makes one of."""
    if not is_in_plane or num_coordinates < 3:
        return range(num_coordinates)
    return (0, 1) if coordinate < 2 else (coordinate,)


def with_limbs(clips_BTKC: Tensor, layout: KeypointLayout, growth_BK: Tensor) -> Tensor:
    """Bones that are longer or shorter: each keypoint goes where the bones between it and its root take it.

    Args:
        growth_BK: factor on the bone between each keypoint and its parent; that of its partner in the mirror, if it
            comes later, is taken from it: nobody's arms differ by much.
    """
    first_of_pair = tuple(map(min, enumerate(layout.mirror or range(layout.num_keypoints))))
    growth_BK = growth_BK[:, index_on(first_of_pair, growth_BK.device)]
    points_BTKD = clips_BTKC[..., : layout.num_coordinates]
    present_BTK1 = presence(points_BTKD)
    hanging = hanging_on(layout, points_BTKD.device)
    added_BTkD = bones(points_BTKD, present_BTK1, layout) * (growth_BK - 1)[:, None, hanging, None]
    roots = tuple(layout.part_roots.values())
    moved_BTDk = added_BTkD.movedim(2, -1) @ _hangs_on(layout.parents, roots, points_BTKD.device).T.to(
        points_BTKD.dtype
    )
    changed_BTKC = clips_BTKC.clone()
    changed_BTKD = changed_BTKC[..., : layout.num_coordinates]
    changed_BTKD[:, :, hanging] += moved_BTDk.movedim(-1, 2) * present_BTK1[:, :, hanging]
    return changed_BTKC


def with_noise(clips_BTKC: Tensor, layout: KeypointLayout, deviation: float, draw: Draw) -> Tensor:
    """Something else added to each coordinate, evenly drawn, of the given standard deviation."""
    points_BTKD = clips_BTKC[..., : layout.num_coordinates]
    widest = deviation * math.sqrt(3)
    num_clips, num_frames, num_keypoints, num_coordinates = points_BTKD.shape
    noise = draw.coarse("noise", points_BTKD[0].numel()).mul_(widest)
    noise_BTKD = noise.view(num_clips, num_coordinates, num_frames, num_keypoints).movedim(1, -1)
    changed_BTKC = clips_BTKC.clone()
    changed_BTKC[..., : layout.num_coordinates] += noise_BTKD * presence(points_BTKD)
    return changed_BTKC


def movable(layout: KeypointLayout, device: torch.device) -> Tensor:
    """float[K, 1]: 1, and 0 for keypoints of parts that are seen from a root of their own: that is their origin."""
    rooted = [keypoint for part in layout.part_roots for keypoint in layout.parts[part]]
    return _all_but(tuple(rooted), layout.num_keypoints, device)


@kept_on_device
def _all_but(keypoints: tuple[int, ...], num_keypoints: int, device: torch.device) -> Tensor:
    """float[K, 1]: 0 for these keypoints, else 1."""
    return torch.tensor([[float(keypoint not in keypoints)] for keypoint in range(num_keypoints)], device=device)


@kept_on_device
def _hangs_on(parents: tuple[int, ...], part_roots: tuple[int, ...], device: torch.device) -> Tensor:
    """float[k, k], of keypoints that have a bone: 1 where the second one's lies between the first and its root.

    A hand that is seen from its wrist ends there: a longer arm moves none of its fingers.
    """
    hangs_KK = torch.zeros(len(parents), len(parents))
    for keypoint in range(len(parents)):
        over = keypoint
        while parents[over] != over and over not in part_roots:
            hangs_KK[keypoint, over] = 1
            over = parents[over]
    hanging = [keypoint for keypoint, parent in enumerate(parents) if keypoint != parent]
    return hangs_KK[hanging][:, hanging].to(device)
