"""Unit: a mirror that undoes itself, and is drawn as often as it should be."""

from dataclasses import replace

import pytest
import torch

from ds_trainer.randomness import Draw
from ds_trainer.tasks.sign.augmentation import Augmentation
from ds_trainer.tasks.sign.known_layouts import layout_for
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.mirror import mirrored

from .examples import clips, normalise, points

NOTHING = Augmentation()


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


def num_mirrored(layout: KeypointLayout, fraction: float, num_clips: int = 400) -> int:
    """How many of these clips came out mirrored; each of the others came out as it was."""
    original = clips(layout, 1, num_frames=1).expand(num_clips, -1, -1, -1)
    drawn = replace(NOTHING, mirror_fraction=fraction).mirrors(layout, Draw.of(0, 0, torch.arange(num_clips)))
    changed, as_it_is = normalise(original, layout, is_mirrored_B=drawn), normalise(original, layout)
    is_mirrored = torch.isclose(changed, mirrored(as_it_is, layout), atol=1e-5).flatten(1).all(1)
    assert torch.equal(is_mirrored, ~(changed == as_it_is).flatten(1).all(1))
    return int(is_mirrored.sum())


def test_fraction_of_mirrored_clips() -> None:
    layout = layout_for(20, 3)
    assert num_mirrored(layout, 0.0) == 0
    assert num_mirrored(layout, 1.0) == 400
    assert 150 < num_mirrored(layout, 0.5) < 250  # 200 are expected, with a deviation of 10
    assert 60 < num_mirrored(layout, 0.25) < 140


def test_features_that_are_no_coordinates_are_seen_in_no_mirror() -> None:
    """Where it is not known which of them is x, none is turned round."""
    layout = layout_for(20, 6)
    assert layout.mirror is not None
    original = clips(layout)
    assert torch.equal(normalise(original, layout, is_mirrored_B=torch.ones(3, dtype=torch.bool)), original)


def test_layout_without_a_mirror_is_never_mirrored() -> None:
    draw = Draw.of(0, 0, torch.arange(3))
    assert replace(NOTHING, mirror_fraction=1.0).mirrors(layout_for(7, 3), draw) is None
