"""Unit: rotations that keep distances, shifts of what has a place, limbs that grow, and what is left alone."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ds_trainer.randomness import Draw
from ds_trainer.tasks.sign.augmentation import Augmentation, rotation, transformed, with_limbs
from ds_trainer.tasks.sign.known_layouts import layout_for
from ds_trainer.tasks.sign.layout import KeypointLayout

from .examples import augmented, clips, normalise, points

NOTHING = Augmentation()
IN_PLANE = Augmentation(mirror_fraction=0.5, max_rotation_degrees=10, max_scale_fraction=0.1, max_shift=0.1)


def distances(points_BTKD: Tensor) -> Tensor:
    return torch.cdist(points_BTKD, points_BTKD, compute_mode="donot_use_mm_for_euclid_dist")


def still(layout: KeypointLayout, num_clips: int) -> tuple[Tensor, Tensor]:
    """Matrices and offsets that change nothing."""
    identity = torch.eye(layout.num_coordinates).expand(num_clips, -1, -1)
    return identity, torch.zeros(num_clips, layout.num_keypoints, layout.num_coordinates)


# -- rotation, scale, shift -------------------------------------------------------------------------------------------


def test_rotation_keeps_distances_and_depth(layout: KeypointLayout) -> None:
    original = normalise(clips(layout).double(), layout).float()
    angle = torch.tensor([0.5, -2.0, math.pi])
    _, shift = still(layout, 3)
    turned = transformed(original, layout, rotation(angle, (0, 1), layout.num_coordinates), shift)
    before, after = points(original, layout), points(turned, layout)
    torch.testing.assert_close(distances(after), distances(before), rtol=1e-5, atol=1e-5)
    assert torch.equal(turned[..., 2:], original[..., 2:])
    torch.testing.assert_close(turned[2, ..., :2], -original[2, ..., :2], rtol=0, atol=1e-5)


def test_rotation_turns_as_angles_do(layout: KeypointLayout) -> None:
    """A quarter turn takes x to y: in the image, whose y points down, that is clockwise."""
    original = clips(layout, 1)
    _, shift = still(layout, 1)
    quarter = rotation(torch.tensor([math.pi / 2]), (0, 1), layout.num_coordinates)
    turned = transformed(original, layout, quarter, shift)
    torch.testing.assert_close(turned[..., 1], original[..., 0])
    torch.testing.assert_close(turned[..., 0], -original[..., 1])


def test_scale_is_the_same_for_all_coordinates(layout: KeypointLayout) -> None:
    original = clips(layout)
    identity, shift = still(layout, 3)
    scale = torch.tensor([0.5, 1.0, 2.0])
    grown = transformed(original, layout, identity * scale[:, None, None], shift)
    torch.testing.assert_close(points(grown, layout), points(original, layout) * scale[:, None, None, None])
    assert torch.equal(grown[..., layout.num_coordinates :], original[..., layout.num_coordinates :])


def test_shift_moves_all_but_what_has_a_root_of_its_own(layout: KeypointLayout) -> None:
    original = clips(layout)
    draw = Draw.of(0, 0, torch.arange(3))
    difference = points(augmented(replace(NOTHING, max_shift=5.0), original, layout, draw) - original, layout)
    shift = draw.between("shift", -5.0, 5.0, layout.num_coordinates)
    rooted = {keypoint for part in layout.part_roots for keypoint in layout.parts[part]}
    for keypoint in range(layout.num_keypoints):
        expected = torch.zeros_like(shift) if keypoint in rooted else shift
        torch.testing.assert_close(difference[:, :, keypoint], expected[:, None].expand(-1, 6, -1), rtol=0, atol=1e-5)
    assert len(rooted) in (0, 42)


@pytest.mark.parametrize(
    "augmentation", [NOTHING, IN_PLANE, Augmentation(1, 180, 0.9, 5, 90, 0.5, 0.5, 0.3, 0.1)], ids=lambda _: ""
)
def test_missing_keypoints_stay_missing(layout: KeypointLayout, augmentation: Augmentation) -> None:
    original = clips(layout, missing=0.4)
    changed = augmented(augmentation, original, layout, Draw.of(0, 0, torch.arange(3)))
    num_missing = (points(original, layout) == 0).all(-1).sum((1, 2))
    assert torch.equal((points(changed, layout) == 0).all(-1).sum((1, 2)), num_missing)
    if augmentation.mirror_fraction == 0:
        assert torch.equal(points(changed, layout) == 0, points(original, layout) == 0)


# -- limbs, turns, displacements, noise -------------------------------------------------------------------------------


def test_limbs_grow_and_carry_what_hangs_on_them() -> None:
    layout = layout_for(20, 3)
    original = clips(layout, 1)
    growth = torch.ones(1, 20)
    growth[:, 4] = 1.5  # the upper arms: elbow 4, and its partner 5
    grown = with_limbs(original, layout, growth)
    for shoulder, elbow, wrist, hand in ((2, 4, 6, 8), (3, 5, 7, 9)):
        upper_arm = original[:, :, elbow] - original[:, :, shoulder]
        torch.testing.assert_close(grown[:, :, elbow], original[:, :, shoulder] + 1.5 * upper_arm)
        for below in (wrist, hand):
            torch.testing.assert_close(grown[:, :, below], original[:, :, below] + 0.5 * upper_arm)
    others = [0, 1, 2, 3, *range(10, 20)]
    assert torch.equal(grown[:, :, others], original[:, :, others])


def test_limbs_keep_the_directions_of_bones(known: KeypointLayout) -> None:
    original = clips(known).double()
    draw = Draw.of(0, 0, torch.arange(3))
    grown = augmented(replace(NOTHING, max_limb_fraction=0.4), original, known, draw)
    ratios = []
    for keypoint, parent in known.bones:
        before, after = (points(each[:, :, keypoint] - each[:, :, parent], known) for each in (original, grown))
        torch.testing.assert_close(
            torch.nn.functional.normalize(after, dim=-1), torch.nn.functional.normalize(before, dim=-1)
        )
        ratio = after.norm(dim=-1) / before.norm(dim=-1)
        torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
        ratios.append(ratio)
    assert 0.6 - 1e-6 <= torch.stack(ratios).min() < 0.9
    assert 1.1 < torch.stack(ratios).max() <= 1.4 + 1e-6
    spread = torch.stack(ratios).amax(0) - torch.stack(ratios).amin(0)
    assert (spread > 0.3).all(), "each bone of a body by itself"


def test_turn_keeps_distances_in_space_and_the_height_or_not() -> None:
    layout = layout_for(20, 3)
    original = clips(layout, 200, num_frames=1)
    turned = augmented(replace(NOTHING, max_turn_degrees=30), original, layout, Draw.of(0, 0, torch.arange(200)))
    torch.testing.assert_close(distances(turned), distances(original), rtol=1e-4, atol=1e-4)
    is_other_BD = ((turned - original).abs() > 0.01).flatten(1, 2).any(1)
    assert (is_other_BD.float().mean(0) > 0.9).all(), "about the vertical axis and about that of the shoulders"
    flat = layout_for(7, 2)
    in_plane = clips(flat)
    assert torch.equal(
        augmented(replace(NOTHING, max_turn_degrees=30), in_plane, flat, Draw.of(0, 0, torch.arange(3))), in_plane
    )


def test_stretch_grows_each_coordinate_by_itself() -> None:
    layout = layout_for(7, 3)
    original = clips(layout, 300)
    ratio = (
        augmented(replace(NOTHING, max_stretch_fraction=0.2), original, layout, Draw.of(0, 0, torch.arange(300)))
        / original
    )
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio))
    assert 0.8 - 1e-5 <= ratio.min() < 0.82
    assert 1.18 < ratio.max() <= 1.2 + 1e-5
    correlation = torch.corrcoef(ratio[:, 0, 0].T)
    assert (correlation - torch.eye(3)).abs().max() < 0.2


def test_a_body_is_stretched_and_then_turned() -> None:
    """In the plane and out of it: its axes stay at right angles, as they would not if its picture were stretched."""
    layout = layout_for(7, 3)
    axes = torch.eye(3)[[0, 1, 2, 0, 1, 2, 0]].expand(50, 1, -1, -1)
    changes = Augmentation(max_rotation_degrees=30, max_turn_degrees=30, max_stretch_fraction=0.4)
    draw = Draw.of(0, 0, torch.arange(50))
    changed = augmented(changes, axes, layout, draw)[:, 0, :3]
    products = changed @ changed.transpose(1, 2)
    torch.testing.assert_close(products, torch.diag_embed(products.diagonal(dim1=1, dim2=2)), rtol=0, atol=1e-6)
    hardly = augmented(replace(changes, max_turn_degrees=1e-4), axes, layout, draw)
    in_plane = augmented(replace(changes, max_turn_degrees=0), axes, layout, draw)
    torch.testing.assert_close(hardly, in_plane, rtol=0, atol=1e-5)


def test_limbs_cost_what_has_bones_and_a_face_nothing() -> None:
    """Counted in products, which no machine makes noisy: a matrix of 543 x 543 keypoints took most of a step."""

    def products(num_keypoints: int) -> int:
        layout = layout_for(num_keypoints, 3)
        with FlopCounterMode(display=False) as counter:
            with_limbs(clips(layout, 2, 4), layout, torch.full((2, num_keypoints), 1.1))
        return counter.get_total_flops()

    assert 0 < products(543) == products(75)


def test_the_palms_of_hands_that_are_seen_from_the_wrist_grow_too() -> None:
    layout = layout_for(75, 4)
    wrist = layout.part_roots["left_hand"]
    knuckle = next(keypoint for keypoint, parent in layout.bones if parent == wrist)
    seen = normalise(clips(layout), layout)
    growth = torch.ones(1, 75)
    growth[:, [knuckle, layout.mirror[knuckle]]] = 1.5
    torch.testing.assert_close(with_limbs(seen, layout, growth)[:, :, knuckle, :3], 1.5 * seen[:, :, knuckle, :3])


def test_a_longer_arm_leaves_the_hand_that_is_seen_from_its_wrist() -> None:
    """Also in a layout whose wrist of the hand hangs on the arm."""
    layout = layout_for(75, 4)
    left_hand, right_hand = (list(layout.parts[part]) for part in ("left_hand", "right_hand"))
    wrists = {layout.part_roots["left_hand"]: 15, layout.part_roots["right_hand"]: 16}
    hung = replace(layout, parents=tuple(wrists.get(k, parent) for k, parent in enumerate(layout.parents)))
    arms = [keypoint for keypoint in range(33) if hung.parents[keypoint] != keypoint]
    growth = torch.ones(1, 75)
    growth[:, arms] = 1.5
    seen = normalise(clips(hung), hung)
    grown = with_limbs(seen, hung, growth)
    assert torch.equal(grown[:, :, left_hand + right_hand], seen[:, :, left_hand + right_hand])
    assert (grown[:, :, [15, 16], :3] != seen[:, :, [15, 16], :3]).all(), "the arm itself grows"


@pytest.mark.parametrize("max_turn", [0.0, 30.0])
def test_a_matrix_in_the_plane_is_one_that_leaves_the_depth_to_itself(max_turn: float) -> None:
    """What is left out where no clip is turned is a product with 0."""
    layout = layout_for(20, 3)
    original, (_, shift) = clips(layout), still(layout, 3)
    augmentation = replace(IN_PLANE, max_turn_degrees=max_turn)
    matrix = augmentation._matrix(Draw.of(0, 0, torch.arange(3)), 3, 1.0)
    whole, in_plane = (transformed(original, layout, matrix, shift, is_in_plane) for is_in_plane in (False, True))
    assert torch.equal(whole, in_plane) == (max_turn == 0)


@pytest.mark.parametrize("depth_weight", [1.0, 0.3])
def test_turns_are_those_of_the_body_whatever_its_depth_counts(depth_weight: float) -> None:
    layout = layout_for(75, 4)
    weight = torch.tensor([1.0, 1.0, depth_weight, 1.0])
    original = clips(layout, missing=0.2)
    turns = Augmentation(max_turn_degrees=40, max_rotation_degrees=20, max_stretch_fraction=0.3)
    turned = augmented(turns, original, layout, draw := Draw.of(0, 0, torch.arange(len(original))))
    torch.testing.assert_close(
        augmented(turns, original * weight, layout, draw, depth_weight=depth_weight), turned * weight
    )


def test_nothing_turns_into_a_depth_that_does_not_count() -> None:
    layout = layout_for(75, 4)
    flat = clips(layout) * torch.tensor([1.0, 1.0, 0.0, 1.0])
    turned = augmented(
        replace(IN_PLANE, max_turn_degrees=40), flat, layout, draw := Draw.of(0, 0, torch.arange(len(flat))), 0
    )
    assert torch.equal(turned, augmented(IN_PLANE, flat, layout, draw))


@pytest.mark.parametrize("num_features", [1, 6])
def test_features_of_which_nothing_is_known_are_left_alone(num_features: int) -> None:
    layout = layout_for(7, num_features)
    original = clips(layout)
    assert torch.equal(augmented(IN_PLANE, original, layout, Draw.of(0, 0, torch.arange(3))), original)


def test_nothing_asked_for_changes_nothing(layout: KeypointLayout) -> None:
    original = clips(layout, missing=0.2)
    assert torch.equal(augmented(NOTHING, original, layout, Draw.of(0, 0, torch.arange(3))), original)
