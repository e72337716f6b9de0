"""Clips as recordings have them, in any layout: smooth, off the origin, with keypoints missing here and there."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ds_trainer.randomness import Draw
from ds_trainer.tasks.sign import features as of_clips
from ds_trainer.tasks.sign import normalisation
from ds_trainer.tasks.sign.augmentation import Augmentation
from ds_trainer.tasks.sign.features import FEATURES, PLACE
from ds_trainer.tasks.sign.known_layouts import layout_for
from ds_trainer.tasks.sign.layout import HANDS, KeypointLayout
from ds_trainer.tasks.sign.preprocessing import Preprocessing
from ds_trainer.tasks.sign.sampling import Sampling
from ds_trainer.tasks.sign.task import SignTask

SHAPES = [(184, 4), (20, 3), (75, 4), (543, 4), (7, 2), (7, 3), (7, 4)]
"""Keypoints and features of each known layout, and of unknown ones with two, three and four features."""

LAYOUTS = {f"{layout.name}x{layout.num_features}": layout for layout in (layout_for(*shape) for shape in SHAPES)}

IN_PLANE = {"mirror_fraction": 0.5, "max_rotation_degrees": 10, "max_scale_fraction": 0.1, "max_shift": 0.1}
"""What augmentation can do in the plane of the image."""

EVERYTHING = {
    **IN_PLANE,
    "max_turn_degrees": 15, "max_stretch_fraction": 0.1, "max_limb_fraction": 0.2, "max_displacement": 0.1,
    "noise": 0.01, "keypoint_mask_fraction": 0.1, "part_mask_fraction": 0.1, "max_frame_mask_fraction": 0.2,
}  # fmt: skip
"""All that augmentation can do."""

BuildTask = Callable[..., SignTask]

SIGNS, SIGNERS, REPETITIONS = 4, 4, 3
"""Of the store that `build` makes tasks of."""

AS_IT_IS = {"features": ("place",), "motion_fraction": 0.0}
"""A clip's own frames, and of them what was recorded."""

SAMPLING = Sampling(12, motion_fraction=0.5, max_tempo_fraction=0.5, max_cut_fraction=0.1)
"""All that sampling can do."""


def preprocessing(
    layout: KeypointLayout,
    sampling: Sampling,
    features: Sequence[str] = (PLACE,),
    parts: Iterable[str] = (),
) -> Preprocessing:
    """That of a model that looks at these parts, or at all that sign."""
    described = {
        "layout": layout.to_dict(),
        "parts": {part: layout.parts[part] for part in parts or layout.signing_parts},
        "num_frames": sampling.num_frames,
        "motion_fraction": sampling.motion_fraction,
        "depth_weight": layout.depth_weight,
        "features": features,
        "num_read": 0,
        "rest_fraction": 0.0,
        "mirrors_left_handed": set(HANDS) <= set(layout.parts),
    }
    return replace(Preprocessing.of(described), sampling=sampling)


def in_training(layout: KeypointLayout, changes: dict[str, float]) -> tuple[Preprocessing, Tensor]:
    """What prepares clips as they are, or with all that there is where `changes` do more than `IN_PLANE`; frames."""
    is_plain = changes == IN_PLANE
    used = preprocessing(layout, Sampling(12)) if is_plain else preprocessing(layout, SAMPLING, FEATURES)
    return used, clips(layout, num_clips=6, num_frames=12 if is_plain else 24, missing=0.1)


def clips(
    layout: KeypointLayout, num_clips: int = 3, num_frames: int = 6, missing: float = 0.0, seed: int = 0
) -> Tensor:
    """Positive coordinates, float32[B, T, K, C]; of the frames of each keypoint a fraction is missing."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_clips, num_frames, layout.num_keypoints, layout.num_features)
    values = 0.2 + torch.rand(shape, generator=generator)
    return values * is_present(layout, num_clips, num_frames, missing, seed)


def is_present(layout: KeypointLayout, num_clips: int, num_frames: int, missing: float, seed: int) -> Tensor:
    """bool[B, T, K, 1]."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return torch.rand(num_clips, num_frames, layout.num_keypoints, 1, generator=generator) >= missing


def augmented(
    augmentation: Augmentation, clips_BTKC: Tensor, layout: KeypointLayout, draw: Draw, depth_weight: float = 1.0
) -> Tensor:
    """Clips as a model is trained on them that looks at all parts."""
    return augmentation(clips_BTKC, layout, draw, list(layout.parts.values()), depth_weight)


def normalise(
    clips_BTKC: Tensor,
    layout: KeypointLayout,
    depth_weight: float = 1.0,
    is_mirrored_B: Tensor | None = None,
    mirrors_left_handed: bool = True,
) -> Tensor:
    """Clips of a layout whose depth counts like the other coordinates, and whose left-handed signers are told."""
    return normalisation.normalise(clips_BTKC, layout, depth_weight, is_mirrored_B, mirrors_left_handed)


def with_features(
    clips_BTKC: Tensor,
    layout: KeypointLayout,
    names: Sequence[str],
    mask_fraction: float = 0.0,
    draw: Draw | None = None,
) -> Tensor:
    """Clips with all of these features."""
    return of_clips.with_features(clips_BTKC, layout, names, mask_fraction, draw)


def moved(clips_BTKC: Tensor, layout: KeypointLayout, scale: float, shift: float) -> Tensor:
    """The same clips from another camera: coordinates that are present are scaled and shifted."""
    changed = clips_BTKC.clone()
    points = changed[..., : layout.num_coordinates]
    offsets = shift * torch.arange(1, layout.num_coordinates + 1)
    points[:] = torch.where((points != 0).any(-1, keepdim=True), scale * points + offsets, points)
    return changed


def points(clips_BTKC: Tensor, layout: KeypointLayout) -> Tensor:
    return clips_BTKC[..., : layout.num_coordinates]


def batch(task: SignTask, clips: list[int], draw: Draw | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    (clips_BTKC,), sign_B = task.prepare(torch.tensor(clips), torch.device("cpu"), draw)
    return clips_BTKC, sign_B
