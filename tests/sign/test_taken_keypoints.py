"""What a model sees does not depend on keypoints that it does not look at."""

from dataclasses import replace

import pytest
import torch

from ds_trainer.tasks.sign.features import FEATURES
from ds_trainer.tasks.sign.handedness import is_left_handed
from ds_trainer.tasks.sign.layout import LOWER_BODY, KeypointLayout
from ds_trainer.tasks.sign.preprocessing import Preprocessing

from .examples import LAYOUTS, SAMPLING, clips, preprocessing

PARTS = [(name, part) for name, layout in LAYOUTS.items() for part in layout.parts]


def over_everything(used: Preprocessing, layout: KeypointLayout) -> Preprocessing:
    """The same for a model that looks at the same keypoints, without leaving any out."""
    everything = tuple(range(layout.num_keypoints))
    parts = [[used.taken[keypoint] for keypoint in part] for part in used.parts]
    return replace(used, taken=everything, layout=layout, parts=parts)


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_what_is_left_out_changes_nothing(name: str, part: str) -> None:
    layout = LAYOUTS[name]
    used = preprocessing(layout, SAMPLING, FEATURES, [part])
    recorded = clips(layout, num_frames=24, missing=0.2)
    whole = over_everything(used, layout).of_sampled(recorded)
    torch.testing.assert_close(used.of_sampled(recorded), whole[:, :, list(used.taken)], rtol=1e-4, atol=1e-4)
    seen = [used.taken[keypoint] for part in used.parts for keypoint in part]
    assert seen == list(layout.parts[part])


@pytest.mark.parametrize(("name", "part"), [each for each in PARTS if LAYOUTS[each[0]].mirror is not None])
def test_left_handed_signers_are_the_same_whatever_is_left_out(name: str, part: str) -> None:
    """Each keypoint moves more or less by itself: one shoulder does not tell which hand signs."""
    layout = LAYOUTS[name]
    used = preprocessing(layout, SAMPLING, parts=[part])
    recorded = clips(layout, num_clips=100, num_frames=8)
    liveliness = torch.rand(100, 1, layout.num_keypoints, 1, generator=torch.Generator().manual_seed(0)) ** 4
    recorded = torch.lerp(recorded.mean(1, keepdim=True), recorded, liveliness)
    expected, found = is_left_handed(recorded, layout), is_left_handed(recorded[:, :, list(used.taken)], used.layout)
    assert expected is not None
    assert found is not None
    assert torch.equal(found, expected)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_keypoints_of_a_part_are_neighbours(layout: KeypointLayout) -> None:
    """So that a model takes slices."""
    for parts in ([], [*layout.parts][::-1]):
        used = preprocessing(layout, SAMPLING, parts=parts)
        assert [keypoint for part in used.parts for keypoint in part] == list(range(sum(map(len, used.parts))))


def test_a_face_is_left_out_where_hands_are_looked_at() -> None:
    layout = LAYOUTS["holistic_543x4"]
    assert len(preprocessing(layout, SAMPLING).taken) > 500
    used = preprocessing(layout, SAMPLING, parts=["left_hand", "right_hand"])
    assert set(used.layout.parts) == {"pose", "left_hand", "right_hand"}
    assert len(used.taken) == 2 * 21 + 2, "both hands, and the shoulders"
    assert LOWER_BODY not in preprocessing(LAYOUTS["kinect_20x3"], SAMPLING).layout.parts
