"""The order of a Kinect's joints, told by the lengths of bones."""

import numpy as np
import pytest

from ds_trainer.tasks.sign.kinect import _SDK_ORDER, kinect_20, kinect_sdk_20
from ds_trainer.tasks.sign.known_layouts import layout_of, notices_of

FEATURES = ("x", "y", "z")
# One who stands, in metres, in the order of isl-kinect30: head, neck, arms from shoulder to hand, spine, hips, legs.
ARMS = [(side * x, y) for x, y in ((0.2, 0.5), (0.3, 0.2), (0.3, 0.0), (0.3, -0.1)) for side in (-1, 1)]
LEGS = [(side * 0.1, y) for y in (-0.1, -0.5, -0.9, -1.0) for side in (-1, 1)]
BODY_KD = np.array([(x, y, 2.0) for x, y in ((0, 0.8), (0, 0.6), *ARMS, (0, 0.2), (0, 0.0), *LEGS)], np.float32)


def recorded(num_frames: int = 50) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 0.02, (num_frames, *BODY_KD.shape))
    return (BODY_KD + noise).astype(np.float32)


def test_either_order_is_told_and_the_less_usual_one_is_said() -> None:
    frames_NKD = recorded()
    in_sdk_order = frames_NKD[:, _SDK_ORDER]
    assert (layout_of(frames_NKD), notices_of(layout_of(frames_NKD), frames_NKD)) == (kinect_20(FEATURES), [])
    assert layout_of(in_sdk_order) == kinect_sdk_20(FEATURES)
    (notice,) = notices_of(layout_of(in_sdk_order), in_sdk_order)
    assert "as Microsoft's SDK for the Kinect writes them" in notice


def test_joints_are_the_same_in_either_order() -> None:
    usual, other = kinect_20(FEATURES), kinect_sdk_20(FEATURES)
    assert [_SDK_ORDER[k] for k in (*other.centre, *other.parts["right_arm"])] == [2, 3, 3, 5, 7, 9]
    assert {(_SDK_ORDER[one], _SDK_ORDER[two]) for one, two in other.bones} == set(usual.bones)
    assert other.is_metric


@pytest.mark.parametrize(
    "frames_NKC", [np.zeros((3, 20, 3)), np.random.default_rng(1).normal(size=(9, 20, 3)), np.ones((2, 20, 1))]
)
def test_what_is_no_body_is_taken_as_usual(frames_NKC: np.ndarray) -> None:
    assert layout_of(frames_NKC.astype(np.float32)).name == "kinect_20"
