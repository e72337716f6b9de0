"""Unit: velocities, accelerations and directions of bones, by hand; nothing where a keypoint is missing."""

import itertools

import pytest
import torch

from ds_trainer.randomness import Draw
from ds_trainer.tasks.sign.features import FEATURES, num_features
from ds_trainer.tasks.sign.known_layouts import layout_for
from ds_trainer.tasks.sign.layout import KeypointLayout

from .examples import clips, normalise, with_features


def test_features_stand_behind_the_clips_own(layout: KeypointLayout) -> None:
    original = clips(layout, missing=0.2)
    names = list(FEATURES)
    assert names[0] == "place"
    extended = with_features(original, layout, names)
    assert extended.shape == (*original.shape[:3], num_features(layout, names))
    assert torch.equal(extended[..., : layout.num_features], original)
    begin = 0
    for name in names:
        alone = with_features(original, layout, [name])
        assert torch.equal(extended[..., begin : begin + alone.shape[-1]], alone)
        begin += alone.shape[-1]


def test_presence_tells_a_missing_keypoint_from_one_at_the_origin(layout: KeypointLayout) -> None:
    original = clips(layout, missing=0.3)
    presence = with_features(original, layout, ["presence"])[..., -1]
    assert torch.equal(presence, (original[..., : layout.num_coordinates] != 0).any(-1).float())
    assert 0.6 < presence.mean() < 0.8


def test_a_moving_point_has_the_velocity_and_acceleration_of_its_path() -> None:
    layout = layout_for(7, 2)
    time_T = torch.arange(6.0)
    original = torch.ones(1, 6, 7, 2)
    original[0, :, 3, 0] = 5 + 2 * time_T
    original[0, :, 3, 1] = 1 + time_T**2
    velocity = with_features(original, layout, ["velocity"])[0] / 6  # of a clip, not of a frame
    acceleration = with_features(original, layout, ["acceleration"])[0] / 6
    assert velocity[:, 3, 0].tolist() == [0, 2, 2, 2, 2, 2]
    torch.testing.assert_close(velocity[:, 3, 1], torch.tensor([0.0, 1, 3, 5, 7, 9]))
    torch.testing.assert_close(acceleration[:, 3], torch.tensor([[0.0, 0], [0, 0], [0, 2], [0, 2], [0, 2], [0, 2]]))
    others = [keypoint for keypoint in range(7) if keypoint != 3]
    assert (velocity[:, others] == 0).all()


def test_bones_have_length_1_and_point_away_from_the_parent() -> None:
    layout = layout_for(20, 3)
    original = clips(layout)
    bones = with_features(original, layout, ["bone"])
    elbow, shoulder, neck = 4, 2, 1
    expected = torch.nn.functional.normalize(original[:, :, elbow] - original[:, :, shoulder], dim=-1)
    torch.testing.assert_close(bones[:, :, elbow], expected)
    assert (bones[:, :, neck] == 0).all(), "it hangs on nothing"


def test_bones_of_a_palm_begin_at_the_wrist_that_the_hand_is_seen_from() -> None:
    layout = layout_for(184, 4)
    wrist = layout.part_roots["right_hand"]
    knuckles = [keypoint for keypoint, parent in layout.bones if parent == wrist]
    original = normalise(clips(layout), layout)
    original[:, 3] = 0  # a frame without the hand
    bones = with_features(original, layout, ["bone"])[:, :, knuckles]
    assert len(knuckles) == 5
    torch.testing.assert_close(bones, torch.nn.functional.normalize(original[:, :, knuckles, :3], dim=-1))
    assert (bones[:, 3] == 0).all()


@pytest.mark.parametrize("name", FEATURES)
def test_what_is_missing_moves_nothing(name: str) -> None:
    """A hand that appears has not come from the origin."""
    layout = layout_for(20, 3)
    original = clips(layout, num_frames=8)
    hand, wrist = 8, 6
    original[:, 4, hand] = 0
    features = with_features(original, layout, [name])
    changed = original.clone()
    changed[:, :4, hand] += 1
    later = with_features(changed, layout, [name])
    assert (features[:, 4, hand] == 0).all()
    assert torch.equal(later[:, 5:, hand], features[:, 5:, hand]), "nothing is known of what was before the gap"
    assert torch.equal(later[:, :, wrist], features[:, :, wrist])


def test_unknown_bones_are_nothing() -> None:
    layout = layout_for(7, 3)
    assert (with_features(clips(layout), layout, ["bone"]) == 0).all()


def test_masked_features_are_missing_as_a_whole_and_never_all(layout: KeypointLayout) -> None:
    original = clips(layout, 1).expand(400, -1, -1, -1)
    names = ["place", "velocity", "bone" if layout.parents else "presence"]
    draw = Draw.of(0, 0, torch.arange(400))
    whole = with_features(original, layout, names)
    masked = with_features(original, layout, names, 0.3, draw)
    widths = [num_features(layout, [name]) for name in names]
    begins = list(itertools.accumulate(widths, initial=0))
    is_kept = torch.stack(
        [(masked[..., a:b] == whole[..., a:b]).flatten(1).all(1) for a, b in itertools.pairwise(begins)], dim=1
    )
    is_gone = torch.stack([(masked[..., a:b] == 0).flatten(1).all(1) for a, b in itertools.pairwise(begins)], dim=1)
    assert torch.equal(is_kept, ~is_gone)
    assert is_kept.any(1).all()
    assert is_kept.float().mean() == pytest.approx(0.7 + 0.3**3, abs=0.04)
    assert torch.equal(with_features(original, layout, names, 0.3, None), whole), "not in validation"
