"""Unit: what augmentation draws: within its limits, for a clip as a whole, whatever its batch."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ds_trainer.randomness import Draw
from ds_trainer.tasks.sign.augmentation import Augmentation
from ds_trainer.tasks.sign.known_layouts import layout_for
from ds_trainer.tasks.sign.layout import KeypointLayout

from .examples import augmented, clips, points
from .test_augmentation import IN_PLANE, NOTHING

EVERYTHING = replace(
    IN_PLANE,
    max_turn_degrees=20,
    max_stretch_fraction=0.2,
    max_limb_fraction=0.3,
    max_displacement=0.1,
    noise=0.05,
    keypoint_mask_fraction=0.2,
    part_mask_fraction=0.2,
    max_frame_mask_fraction=0.4,
)


def test_displacement_is_of_a_keypoint_and_noise_of_a_frame() -> None:
    layout = layout_for(20, 3)
    original = clips(layout, 50)
    draw = Draw.of(0, 0, torch.arange(50))
    displaced = augmented(replace(NOTHING, max_displacement=0.2), original, layout, draw) - original
    torch.testing.assert_close(displaced, displaced[:, :1].expand_as(displaced), rtol=0, atol=1e-6)
    assert 0.19 < displaced.abs().max() <= 0.2 + 1e-6
    noise = augmented(replace(NOTHING, noise=0.1), original, layout, draw) - original
    assert noise.std() == pytest.approx(0.1, rel=0.02)
    assert noise.mean().abs() < 0.005
    assert (noise[:, 1:] != noise[:, :-1]).all()


def test_masks_take_away_keypoints_parts_and_frames() -> None:
    layout = layout_for(20, 3)
    original = clips(layout, 400, num_frames=50)
    draw = Draw.of(0, 0, torch.arange(400))

    def is_masked(augmentation: Augmentation) -> Tensor:
        changed = augmented(augmentation, original, layout, draw)
        gone_BTK = (changed == 0).all(-1)
        assert torch.equal(changed[~gone_BTK], original[~gone_BTK])
        return gone_BTK

    keypoints = is_masked(replace(NOTHING, keypoint_mask_fraction=0.3))
    assert torch.equal(keypoints, keypoints[:, :1].expand_as(keypoints))
    assert keypoints.float().mean() == pytest.approx(0.3, abs=0.03)
    parts = is_masked(replace(NOTHING, part_mask_fraction=0.25))
    for part in layout.parts.values():
        assert torch.equal(parts[:, :, list(part)].all(-1), parts[:, :, list(part)].any(-1))
        assert parts[:, :, list(part)].float().mean() == pytest.approx(0.25, abs=0.07)
    frames = is_masked(replace(NOTHING, max_frame_mask_fraction=0.5))
    assert torch.equal(frames, frames[..., :1].expand_as(frames))
    num_frames = frames[..., 0].sum(1)
    assert 23 <= num_frames.max() <= 26, "of 50"
    assert num_frames.float().mean() == pytest.approx(12.5, abs=1.0), "wherever it begins, it is in the clip as a whole"
    begins = (frames[:, 1:, 0] & ~frames[:, :-1, 0]).sum(1) + frames[:, 0, 0]
    assert begins.max() == 1, "one stretch"


def test_of_the_parts_that_a_model_sees_one_stays() -> None:
    layout = layout_for(75, 4)
    hands = [layout.parts["left_hand"], layout.parts["right_hand"]]
    original = clips(layout, 400)
    masking = replace(NOTHING, part_mask_fraction=0.5)
    gone_BTK = (masking(original, layout, Draw.of(0, 0, torch.arange(400)), hands, 1.0) == 0).all(-1)
    is_gone_BP = torch.stack([gone_BTK[:, :, list(hand)].all(-1).all(1) for hand in hands], dim=1)
    assert not is_gone_BP.all(1).any()
    assert is_gone_BP.float().mean() == pytest.approx(0.25, abs=0.05)
    others = sorted(set(range(75)).difference(*hands))
    assert not gone_BTK[:, :, others].any()


def test_changes_stay_within_their_limits() -> None:
    layout = layout_for(7, 3)
    original = clips(layout, 1, num_frames=1).expand(500, -1, -1, -1)
    draw = Draw.of(0, 0, torch.arange(500))
    before = points(original, layout)
    shift = augmented(replace(NOTHING, max_shift=0.3), original, layout, draw) - before
    assert shift.abs().max() <= 0.3 + 1e-5
    assert shift[:, 0, 0].amax(0).min() > 0.27
    assert shift[:, 0, 0].amin(0).max() < -0.27
    growth = (augmented(replace(NOTHING, max_scale_fraction=0.2), original, layout, draw) / before).flatten(1)
    torch.testing.assert_close(growth.amax(1), growth.amin(1))
    assert 0.8 - 1e-5 <= growth.min() < 0.82
    assert 1.18 < growth.max() <= 1.2 + 1e-5
    turned = augmented(replace(NOTHING, max_rotation_degrees=30), original, layout, draw)
    angle = torch.atan2(turned[..., 1], turned[..., 0]) - torch.atan2(before[..., 1], before[..., 0])
    degrees = torch.rad2deg(angle)[:, 0, 0]
    assert -30 - 1e-3 <= degrees.min() < -28
    assert 28 < degrees.max() <= 30 + 1e-3


def test_turns_go_either_way_about_both_lines() -> None:
    layout = layout_for(7, 3)
    axes = torch.eye(3)[[0, 1, 2, 0, 1, 2, 0]].expand(500, 1, -1, -1)
    turned = augmented(replace(NOTHING, max_turn_degrees=30), axes, layout, Draw.of(0, 0, torch.arange(500)))[:, 0]
    degrees = torch.rad2deg(torch.stack([turned[:, 0, 2], turned[:, 2, 1]]).asin())
    assert ((degrees.amin(1) >= -30 - 1e-3) & (degrees.amin(1) < -28)).all()
    assert ((degrees.amax(1) > 28) & (degrees.amax(1) <= 30 + 1e-3)).all()


def test_changes_of_two_kinds_go_together() -> None:
    layout = layout_for(7, 3)
    original = clips(layout)

    def changed(**most: float) -> Tensor:
        return augmented(replace(NOTHING, **most), original, layout, Draw.of(0, 0, torch.arange(3)))

    shifted, displaced = changed(max_shift=0.3) - original, changed(max_displacement=0.1) - original
    torch.testing.assert_close(changed(max_shift=0.3, max_displacement=0.1), original + shifted + displaced)
    grown, stretched = changed(max_scale_fraction=0.3) / original, changed(max_stretch_fraction=0.2) / original
    torch.testing.assert_close(changed(max_scale_fraction=0.3, max_stretch_fraction=0.2), original * grown * stretched)


def test_a_clip_is_changed_as_a_whole(layout: KeypointLayout) -> None:
    """Each frame alike, so that movement stays smooth."""
    frozen = clips(layout, 2, num_frames=1).expand(-1, 5, -1, -1)
    changed = augmented(IN_PLANE, frozen, layout, Draw.of(0, 0, torch.arange(2)))
    torch.testing.assert_close(changed, changed[:, :1].expand(-1, 5, -1, -1))
    assert not torch.equal(changed, frozen)


@pytest.mark.parametrize("augmentation", [IN_PLANE, EVERYTHING], ids=["in_plane", "everything"])
def test_augmentation_of_a_clip_does_not_depend_on_its_batch(
    layout: KeypointLayout, augmentation: Augmentation
) -> None:
    original = clips(layout, 5, missing=0.1)
    whole = augmented(augmentation, original, layout, Draw.of(3, 2, torch.arange(5)))
    index = torch.tensor([4, 1])
    some = augmented(augmentation, original[index], layout, Draw.of(3, 2, index))
    torch.testing.assert_close(some, whole[index], rtol=0, atol=1e-5)
    other_epoch = augmented(augmentation, original, layout, Draw.of(3, 3, torch.arange(5)))
    assert (other_epoch != whole).flatten(1).any(1).all(), "each clip is seen anew in each epoch"
