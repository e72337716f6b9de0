"""Unit: a mirror that undoes itself, rotations that keep distances, shifts of what has a place, and fair draws."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ds_trainer.randomness import Draw
from ds_trainer.tasks.sign.augmentation import Augmentation, mirrored, transformed
from ds_trainer.tasks.sign.layout import KeypointLayout, layout_for
from ds_trainer.tasks.sign.normalisation import normalise

from .examples import LAYOUTS, clips

NOTHING = Augmentation(mirror_fraction=0, max_rotation_degrees=0, max_scale_fraction=0, max_shift=0)
KNOWN = {name: layout for name, layout in LAYOUTS.items() if layout.mirror is not None}


@pytest.fixture(params=list(LAYOUTS.values()), ids=list(LAYOUTS))
def layout(request: pytest.FixtureRequest) -> KeypointLayout:
    return request.param


@pytest.fixture(params=list(KNOWN.values()), ids=list(KNOWN))
def known(request: pytest.FixtureRequest) -> KeypointLayout:
    return request.param


def points(clips_BTKC: Tensor, layout: KeypointLayout) -> Tensor:
    return clips_BTKC[..., : layout.num_coordinates]


def distances(points_BTKD: Tensor) -> Tensor:
    return torch.cdist(points_BTKD, points_BTKD, compute_mode="donot_use_mm_for_euclid_dist")


def still(layout: KeypointLayout, num_clips: int) -> tuple[Tensor, Tensor, Tensor]:
    """Angles, scales and shifts that change nothing."""
    return torch.zeros(num_clips), torch.ones(num_clips), torch.zeros(num_clips, layout.num_coordinates)


# -- mirror -----------------------------------------------------------------------------------------------------------


def test_mirror_twice_is_the_identity(known: KeypointLayout) -> None:
    for original in (clips(known, missing=0.2), normalise(clips(known, missing=0.2), known)):
        once = mirrored(original, known)
        assert not torch.equal(once, original)
        assert torch.equal(mirrored(once, known), original), "to the last bit"


def test_mirror_turns_x_and_changes_sides(known: KeypointLayout) -> None:
    original = clips(known)
    image = mirrored(original, known)
    assert known.mirror is not None
    for keypoint, partner in enumerate(known.mirror):
        assert torch.equal(image[:, :, keypoint, 0], -original[:, :, partner, 0])
        assert torch.equal(image[:, :, keypoint, 1:], original[:, :, partner, 1:]), "height, depth, confidence"


@pytest.mark.parametrize("shape", [(184, 4), (75, 4), (543, 4)])
def test_right_hand_appears_in_the_place_of_the_left(shape: tuple[int, int]) -> None:
    layout = layout_for(*shape)
    one_handed = clips(layout)
    left, right = list(layout.parts["left_hand"]), list(layout.parts["right_hand"])
    one_handed[:, :, left] = 0
    image = mirrored(one_handed, layout)
    assert (points(image, layout)[:, :, right] == 0).all()
    assert torch.equal(image[:, :, left, 0], -one_handed[:, :, right, 0]), "finger by finger, wrist to wrist"
    assert torch.equal(image[:, :, left, 1:], one_handed[:, :, right, 1:])


def test_mirror_image_is_normalised_like_any_clip(known: KeypointLayout) -> None:
    """It does not matter whether a recording or its normalised form is mirrored."""
    original = clips(known, missing=0.1).double()
    torch.testing.assert_close(normalise(mirrored(original, known), known), mirrored(normalise(original, known), known))


# -- rotation, scale, shift -------------------------------------------------------------------------------------------


def test_rotation_keeps_distances_and_depth(layout: KeypointLayout) -> None:
    original = normalise(clips(layout).double(), layout).float()
    _, scale, shift = still(layout, 3)
    turned = transformed(original, layout, torch.tensor([0.5, -2.0, math.pi]), scale, shift)
    before, after = points(original, layout), points(turned, layout)
    torch.testing.assert_close(distances(after), distances(before), rtol=1e-5, atol=1e-5)
    assert torch.equal(turned[..., 2:], original[..., 2:])
    torch.testing.assert_close(turned[2, ..., :2], -original[2, ..., :2], rtol=0, atol=1e-5)


def test_rotation_turns_as_angles_do(layout: KeypointLayout) -> None:
    """A quarter turn takes x to y: in the image, whose y points down, that is clockwise."""
    original = clips(layout, 1)
    _, scale, shift = still(layout, 1)
    turned = transformed(original, layout, torch.tensor([math.pi / 2]), scale, shift)
    torch.testing.assert_close(turned[..., 1], original[..., 0])
    torch.testing.assert_close(turned[..., 0], -original[..., 1])


def test_scale_is_the_same_for_all_coordinates(layout: KeypointLayout) -> None:
    original = clips(layout)
    angle, _, shift = still(layout, 3)
    scale = torch.tensor([0.5, 1.0, 2.0])
    grown = transformed(original, layout, angle, scale, shift)
    torch.testing.assert_close(points(grown, layout), points(original, layout) * scale[:, None, None, None])
    assert torch.equal(grown[..., layout.num_coordinates :], original[..., layout.num_coordinates :])


def test_shift_moves_all_but_what_has_a_root_of_its_own(layout: KeypointLayout) -> None:
    original = clips(layout)
    angle, scale, _ = still(layout, 3)
    shift = torch.arange(1.0, 1 + 3 * layout.num_coordinates).view(3, -1)
    difference = points(transformed(original, layout, angle, scale, shift) - original, layout)
    rooted = {keypoint for part in layout.part_roots for keypoint in layout.parts[part]}
    for keypoint in range(layout.num_keypoints):
        expected = torch.zeros_like(shift) if keypoint in rooted else shift
        torch.testing.assert_close(difference[:, :, keypoint], expected[:, None].expand(-1, 6, -1), rtol=0, atol=1e-5)
    assert len(rooted) in (0, 42)


@pytest.mark.parametrize("augmentation", [NOTHING, Augmentation(), Augmentation(1, 180, 0.9, 5)], ids=str)
def test_missing_keypoints_stay_missing(layout: KeypointLayout, augmentation: Augmentation) -> None:
    original = clips(layout, missing=0.4)
    changed = augmentation(original, layout, Draw(0, 0, torch.arange(3)))
    num_missing = (points(original, layout) == 0).all(-1).sum((1, 2))
    assert torch.equal((points(changed, layout) == 0).all(-1).sum((1, 2)), num_missing)
    if augmentation.mirror_fraction == 0:
        assert torch.equal(points(changed, layout) == 0, points(original, layout) == 0)


# -- what is drawn ----------------------------------------------------------------------------------------------------


def num_mirrored(layout: KeypointLayout, fraction: float, num_clips: int = 400) -> int:
    """How many of these clips came out mirrored; each of the others came out as it was."""
    original = clips(layout, 1, num_frames=1).expand(num_clips, -1, -1, -1)
    draw = Draw(0, 0, torch.arange(num_clips))
    changed = replace(NOTHING, mirror_fraction=fraction)(original, layout, draw)
    is_mirrored = (changed == mirrored(original, layout)).flatten(1).all(1)
    assert torch.equal(is_mirrored, ~(changed == original).flatten(1).all(1))
    return int(is_mirrored.sum())


def test_fraction_of_mirrored_clips() -> None:
    layout = layout_for(20, 3)
    assert num_mirrored(layout, 0.0) == 0
    assert num_mirrored(layout, 1.0) == 400
    assert 150 < num_mirrored(layout, 0.5) < 250  # 200 are expected, with a deviation of 10
    assert 60 < num_mirrored(layout, 0.25) < 140


def test_layout_without_a_mirror_is_never_mirrored() -> None:
    layout = layout_for(7, 3)
    original = clips(layout)
    draw = Draw(0, 0, torch.arange(3))
    assert torch.equal(replace(NOTHING, mirror_fraction=1.0)(original, layout, draw), original)


@pytest.mark.parametrize("num_features", [1, 6])
def test_features_of_which_nothing_is_known_are_left_alone(num_features: int) -> None:
    layout = layout_for(7, num_features)
    original = clips(layout)
    assert torch.equal(Augmentation()(original, layout, Draw(0, 0, torch.arange(3))), original)


def test_nothing_asked_for_changes_nothing(layout: KeypointLayout) -> None:
    original = clips(layout, missing=0.2)
    assert torch.equal(NOTHING(original, layout, Draw(0, 0, torch.arange(3))), original)


def test_changes_stay_within_their_limits() -> None:
    layout = layout_for(7, 3)
    original = clips(layout, 1, num_frames=1).expand(500, -1, -1, -1)
    draw = Draw(0, 0, torch.arange(500))
    before = points(original, layout)
    shift = replace(NOTHING, max_shift=0.3)(original, layout, draw) - before
    assert shift.abs().max() <= 0.3 + 1e-5
    assert shift[:, 0, 0].amax(0).min() > 0.27
    assert shift[:, 0, 0].amin(0).max() < -0.27
    growth = (replace(NOTHING, max_scale_fraction=0.2)(original, layout, draw) / before).flatten(1)
    torch.testing.assert_close(growth.amax(1), growth.amin(1))
    assert 0.8 - 1e-5 <= growth.min() < 0.82
    assert 1.18 < growth.max() <= 1.2 + 1e-5
    turned = replace(NOTHING, max_rotation_degrees=30)(original, layout, draw)
    angle = torch.atan2(turned[..., 1], turned[..., 0]) - torch.atan2(before[..., 1], before[..., 0])
    degrees = torch.rad2deg(angle)[:, 0, 0]
    assert -30 - 1e-3 <= degrees.min() < -28
    assert 28 < degrees.max() <= 30 + 1e-3


def test_a_clip_is_changed_as_a_whole(layout: KeypointLayout) -> None:
    """Each frame alike, so that movement stays smooth."""
    frozen = clips(layout, 2, num_frames=1).expand(-1, 5, -1, -1)
    changed = Augmentation()(frozen, layout, Draw(0, 0, torch.arange(2)))
    torch.testing.assert_close(changed, changed[:, :1].expand(-1, 5, -1, -1))
    assert not torch.equal(changed, frozen)


def test_augmentation_of_a_clip_does_not_depend_on_its_batch(layout: KeypointLayout) -> None:
    original = clips(layout, 5, missing=0.1)
    whole = Augmentation()(original, layout, Draw(3, 2, torch.arange(5)))
    index = torch.tensor([4, 1])
    some = Augmentation()(original[index], layout, Draw(3, 2, index))
    torch.testing.assert_close(some, whole[index], rtol=0, atol=1e-6)
    other_epoch = Augmentation()(original, layout, Draw(3, 3, torch.arange(5)))
    assert (other_epoch != whole).flatten(1).any(1).all(), "each clip is seen anew in each epoch"
