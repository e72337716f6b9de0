"""Unit: clips of one sign from different cameras come out the same, and what is missing stays missing."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from ds_trainer.tasks.sign.augmentation import rotation
from ds_trainer.tasks.sign.known_layouts import layout_for
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.mirror import mirrored

from .examples import clips, moved, normalise, points, with_features


@pytest.mark.parametrize("missing", [0.0, 0.3, 0.9])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 3.0), (0.25, 0.0), (40.0, -7.0)])
def test_camera_does_not_matter(layout: KeypointLayout, missing: float, scale: float, shift: float) -> None:
    original = clips(layout, missing=missing).double()
    other_camera = moved(original, layout, scale, shift)
    torch.testing.assert_close(normalise(other_camera, layout), normalise(original, layout), rtol=1e-9, atol=1e-9)


def test_clips_do_not_change_one_another(layout: KeypointLayout) -> None:
    several = clips(layout, num_clips=4, missing=0.2)
    alone = torch.cat([normalise(clip[None], layout) for clip in several])
    torch.testing.assert_close(normalise(several, layout), alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("missing", [0.3, 0.95])
def test_missing_keypoints_stay_exactly_zero(layout: KeypointLayout, missing: float) -> None:
    original = clips(layout, num_frames=20, missing=missing)
    normalised = normalise(original, layout, mirrors_left_handed=False)
    is_missing = (points(original, layout) == 0).all(-1)
    assert is_missing.any()
    assert (points(normalised, layout)[is_missing] == 0).all()
    assert normalised.isfinite().all()


def test_present_keypoints_do_not_become_missing(layout: KeypointLayout) -> None:
    original = clips(layout, num_frames=20, missing=0.3)
    of_body = [k for part, of_part in layout.parts.items() if part not in layout.part_roots for k in of_part]
    is_present = (points(original, layout) != 0).any(-1)[:, :, of_body]
    assert torch.equal((points(normalise(original, layout), layout) != 0).any(-1)[:, :, of_body], is_present)


@pytest.mark.parametrize("depth_weight", [1.0, 0.0])
def test_lone_centre_that_keeps_still_is_not_missing(depth_weight: float) -> None:
    """Such as a neck, or any lone centre in a clip of one frame: it lies at the origin, and its bones begin there."""
    neck, shoulders = 1, [2, 3]
    layout = replace(layout_for(20, 3), centre=(neck,))
    original = clips(layout, num_frames=6, missing=0.2)
    original[:, :, neck] = original[:, :1, neck]
    original[:, 4, neck] = 0
    for recorded in (original, original[:, :1] + (original[:, :1] == 0)):
        normalised = normalise(recorded, layout, depth_weight)
        is_present = (recorded != 0).any(-1)
        assert torch.equal((normalised != 0).any(-1), is_present)
        assert (normalised[:, :, neck].abs() < 1e-5).all()
        directions = with_features(normalised, layout, ["bone"])[:, :, shoulders].norm(dim=-1)
        torch.testing.assert_close(directions, (is_present[:, :, shoulders] & is_present[:, :, [neck]]).float())


def test_features_that_are_no_coordinates_are_kept(layout: KeypointLayout) -> None:
    original = clips(layout, missing=0.2)
    confidence = original[..., layout.num_coordinates :]
    assert torch.equal(normalise(original, layout)[..., layout.num_coordinates :], confidence)


def test_input_is_not_changed(layout: KeypointLayout) -> None:
    original = clips(layout, missing=0.2)
    kept = original.clone()
    normalise(original, layout)
    assert torch.equal(original, kept)


def test_extreme_clips_are_finite(layout: KeypointLayout) -> None:
    shape = (1, 4, layout.num_keypoints, layout.num_features)
    single = torch.zeros(shape)
    single[0, 1, 2] = 0.7
    assert (normalise(torch.zeros(shape), layout) == 0).all(), "all missing"
    for extreme in (torch.ones(shape), single, 1e6 * clips(layout, 1), 1e-6 * clips(layout, 1)):
        assert normalise(extreme, layout).isfinite().all()


@pytest.mark.parametrize("num_frames", [1, 9])
def test_body_is_centred_and_of_unit_size(layout: KeypointLayout, num_frames: int) -> None:
    body = points(normalise(clips(layout, num_frames=num_frames).double(), layout), layout)
    if layout.scale is None:
        assert body.square().sum(-1).mean((1, 2)).tolist() == pytest.approx([1] * 3)
        torch.testing.assert_close(body.mean((1, 2)), torch.zeros(3, layout.num_coordinates).double())
        return
    one, other = layout.scale
    distance = (body[:, :, one] - body[:, :, other]).norm(dim=-1).mean(1)
    assert distance.tolist() == pytest.approx([1] * 3), "the shoulders are one apart, averaged over the clip"
    torch.testing.assert_close(
        body[:, :, list(layout.centre)].mean((1, 2)), torch.zeros(3, layout.num_coordinates).double()
    )


@pytest.mark.parametrize("shape", [(184, 4), (20, 3), (75, 4), (543, 4)])
def test_origin_lies_between_the_shoulders_also_where_one_is_missing_now_and_then(shape: tuple[int, int]) -> None:
    layout = layout_for(*shape)
    still = clips(layout, 1, num_frames=1).double().expand(2, 8, -1, -1).clone()
    still[1, 2:, layout.centre[0]] = 0
    whole, torn = points(normalise(still, layout), layout)
    seen = [keypoint for keypoint in range(layout.num_keypoints) if keypoint != layout.centre[0]]
    torch.testing.assert_close(torn[:, seen], whole[:, seen])
    still[1, :, layout.centre[0]] = 0
    lone = points(normalise(still, layout), layout)[1, :, layout.centre[1]]
    torch.testing.assert_close(lone, torch.zeros_like(lone), rtol=0, atol=1e-5)


def test_measured_bodies_face_the_camera() -> None:
    """However the camera was turned about the vertical axis, the clip comes out the same; a guessed depth is left."""
    kinect, karsl = layout_for(20, 3), layout_for(184, 3)
    for layout, is_turned in ((kinect, True), (karsl, False)):
        original = clips(layout, 2).double()
        turn = rotation(torch.tensor([0.7, -2.0]).double(), (0, 2), 3)
        seen = original @ turn.transpose(1, 2)[:, None]
        one, other = (normalise(each, layout) for each in (original, seen))
        assert torch.allclose(one, other) is is_turned
    left, right = (one_or_other.mean(1) for one_or_other in normalise(clips(kinect), kinect)[:, :, [2, 3]].unbind(2))
    across = right - left
    assert (across[:, 0] > 0).all()
    torch.testing.assert_close(across[:, 2], torch.zeros(3), rtol=0, atol=1e-5)


def test_measured_bodies_are_turned_as_a_whole() -> None:
    """All distances within one keep their proportions, as do those of one whose shoulders are never both seen."""
    layout = layout_for(20, 3)
    assert layout.scale is not None
    original = clips(layout, 2).double()
    original[1, :, layout.scale[0]] = 0
    seen = [keypoint for keypoint in range(20) if keypoint != layout.scale[0]]
    before, after = (
        torch.cdist(each, each) for each in (original[:, :, seen], normalise(original, layout)[:, :, seen])
    )
    largest_before, largest_after = (each.amax((1, 2, 3), keepdim=True) for each in (before, after))
    torch.testing.assert_close(after / largest_after, before / largest_before)


def test_measured_bodies_face_the_camera_whatever_their_depth_counts() -> None:
    """A depth of no weight leaves x and y as they are seen from in front."""
    layout = layout_for(20, 3)
    original = clips(layout, 2).double()
    turn = rotation(torch.tensor([0.7, -2.0]).double(), (0, 2), 3)
    seen = original @ turn.transpose(1, 2)[:, None]
    for depth_weight in (0.3, 0.0):
        one, other = (normalise(each, layout, depth_weight) for each in (original, seen))
        torch.testing.assert_close(one, other)
    assert (one[..., 2].abs() < 1e-5).all()


@pytest.mark.parametrize("changes", [{"scale": None}, {"features": ("x", "y")}], ids=["no scale", "no depth"])
def test_measured_bodies_without_shoulders_or_a_depth_are_not_turned(changes: dict[str, Any]) -> None:
    layout = replace(layout_for(20, 3), **changes)
    original = clips(layout)
    turned, expected = (normalise(original, each) for each in (layout, replace(layout, is_metric=False)))
    assert torch.equal(turned, expected)
    if layout.num_coordinates == 2:
        assert torch.equal(normalise(original, layout, depth_weight=0.3), expected)


@pytest.mark.parametrize("shape", [(184, 4), (75, 4), (543, 4)])
def test_left_handed_signers_are_seen_like_others(shape: tuple[int, int]) -> None:
    layout = layout_for(*shape)
    right_handed = clips(layout)
    right_handed[:, :, list(layout.parts["left_hand"])] = 0
    left_handed = mirrored(right_handed, layout)
    torch.testing.assert_close(normalise(left_handed, layout), normalise(right_handed, layout), rtol=1e-4, atol=1e-5)
    wanted = torch.tensor([True, False, True])
    one, other = (normalise(each, layout, is_mirrored_B=wanted) for each in (left_handed, right_handed))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert torch.equal((one != normalise(left_handed, layout)).flatten(1).any(1), wanted), "mirrored when it is drawn"
    both = clips(layout)
    assert not torch.allclose(normalise(mirrored(both, layout), layout), normalise(both, layout), atol=1e-3)


def test_movement_of_the_whole_body_stays() -> None:
    layout = layout_for(20, 3)
    walking = clips(layout, 1, num_frames=2)
    walking[:, 1] = walking[:, 0] + 0.5
    normalised = normalise(walking, layout)
    assert (normalised[:, 1] - normalised[:, 0] > 0.1).all()


@pytest.mark.parametrize("shape", [(184, 4), (75, 4), (543, 4)])
def test_hands_are_seen_from_their_wrists(shape: tuple[int, int]) -> None:
    layout = layout_for(*shape)
    original = clips(layout, 1).double()
    normalised = normalise(original, layout, mirrors_left_handed=False)
    for part, root in layout.part_roots.items():
        hand = list(layout.parts[part])
        assert (points(normalised, layout)[:, :, root] == 0).all()
        nearer = original.clone()
        nearer[:, :, hand, : layout.num_coordinates] = 3 * points(original, layout)[:, :, hand] + 5
        others = [keypoint for keypoint in range(layout.num_keypoints) if keypoint not in hand]
        moved_hand = normalise(nearer, layout, mirrors_left_handed=False)
        torch.testing.assert_close(moved_hand[:, :, hand], normalised[:, :, hand])
        assert torch.equal(moved_hand[:, :, others], normalised[:, :, others])


@pytest.mark.parametrize("shape", [(184, 4), (75, 4), (543, 4)])
def test_hand_without_its_wrist_is_missing(shape: tuple[int, int]) -> None:
    """A hand has no place of its own where its origin is unknown; far-off numbers would be worse than none.

    Where it is seen it is as large as ever.
    """
    layout = layout_for(*shape)
    without_wrist = clips(layout, 1, num_frames=1).expand(-1, 6, -1, -1).clone()
    whole = normalise(without_wrist, layout)
    for part, root in layout.part_roots.items():
        without_wrist[:, 2, root] = 0
        hand = points(normalise(without_wrist, layout), layout)[0][:, list(layout.parts[part])]
        assert (hand[2] == 0).all()
        torch.testing.assert_close(hand[3], points(whole, layout)[0, 3, list(layout.parts[part])])


@pytest.mark.parametrize("shape", [(184, 4), (20, 3), (75, 4), (543, 4)])
def test_clip_that_never_shows_both_shoulders_is_still_normalised(shape: tuple[int, int]) -> None:
    layout = layout_for(*shape)
    assert layout.scale is not None
    original = clips(layout, 1).double()
    original[:, :, layout.scale[0]] = 0
    body = points(normalise(original, layout), layout)
    assert 0.5 < body.abs().max() < 20
    torch.testing.assert_close(normalise(moved(original, layout, 9.0, 2.0), layout), normalise(original, layout))
