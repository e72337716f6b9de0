"""MediaPipe Holistic keypoints, in whichever order a recording has the parts of the body."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ds_trainer.predict import problem_of
from ds_trainer.tasks.sign.holistic import holistic, in_order, is_holistic, misfit, order_of
from ds_trainer.tasks.sign.known_layouts import layout_for, notices_of
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.prepare import resolve_store
from ds_trainer.tasks.sign.readers import default
from ds_trainer.tasks.sign.store import ClipStore
from ds_trainer.tasks.sign.synthetic import SyntheticSettings, synthetic_source

from .writers import frames as random_frames

GOOGLE = ("face", "left_hand", "pose", "right_hand")
ORDERS = [
    *itertools.permutations(("pose", "left_hand", "right_hand")),
    *itertools.permutations(("pose", "face", "left_hand", "right_hand")),
]


def synthetic_frames(order: tuple[str, ...]) -> np.ndarray:
    """Frames of a few clips, float32[N, K, 4], the parts in this order."""
    layout = "holistic_543" if "face" in order else "holistic_75"
    settings = SyntheticSettings(num_clips=12, num_signs=12, layout=layout)
    frames = np.concatenate([clip.frames for clip in synthetic_source(settings).clips])  # type: ignore[union-attr]
    return reordered(frames, order)


def reordered(frames: np.ndarray, order: tuple[str, ...]) -> np.ndarray:
    """Frames of the usual order in another one."""
    usual = layout_for(*frames.shape[1:]).parts
    places = {**usual, "pose": (*usual["pose"], *usual["lower_body"])}
    return frames[:, [keypoint for part in order for keypoint in places[part]]]


def real_frames() -> Iterator[np.ndarray]:
    """The frames of six languages, float32[N, 543, 3] each."""
    pytest.importorskip("spoken_to_signed", reason="the demo extra is not installed")
    pose_format = pytest.importorskip("pose_format", reason="the demo extra is not installed")
    for language in ("ase", "csq", "gsg", "ise", "psr", "tsm"):
        clips = []
        for path in sorted((default.find() / language).glob("*.pose"))[:8]:
            body = pose_format.Pose.read(path.read_bytes()).body
            points = np.where(body.confidence[:, 0, :, None] > 0, np.ma.getdata(body.data)[:, 0], 0.0)
            clips.append(points[:, [*range(33 + 468), *range(33 + 478, 33 + 478 + 42)]])
        yield np.concatenate(clips).astype(np.float32)


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_order_is_found_by_the_bones(order: tuple[str, ...]) -> None:
    frames = synthetic_frames(order)
    usual = layout_for(*frames.shape[1:])
    found = in_order(usual, frames)
    assert found.parts == holistic(usual.features, 468 if "face" in order else 0, order).parts
    is_usual = order == tuple(part for part in ("pose", "face", "left_hand", "right_hand") if part in order)
    assert (found == usual) == is_usual
    assert order_of(found) == list(order)
    assert list(found.parts) == list(usual.parts), "a model sees the parts in one order"


def test_order_of_real_recordings_is_found() -> None:
    for frames in real_frames():
        for order in (("pose", "face", "left_hand", "right_hand"), GOOGLE, ("left_hand", "right_hand", "face", "pose")):
            found = in_order(layout_for(543, 3), reordered(frames, order))
            assert found.parts == holistic(("x", "y", "z"), 468, order).parts


def test_a_wrong_order_is_nothing_like_a_body() -> None:
    for frames in real_frames():
        assert misfit(frames, layout_for(543, 3)) < 0.45
        wrong = [holistic(("x", "y", "z"), 468, order) for order in ORDERS[6:]]
        assert sorted(misfit(frames, layout) for layout in wrong)[1] > 0.5


@pytest.mark.parametrize("num_keypoints", [75, 543, 553])
def test_what_is_like_no_body_in_any_order_is_taken_as_usual(num_keypoints: int) -> None:
    usual = layout_for(num_keypoints, 3)
    assert in_order(usual, random_frames(20, (num_keypoints, 3))) is usual
    nothing = np.zeros((4, num_keypoints, 3), np.float32)
    assert misfit(nothing, usual) == np.inf
    assert in_order(usual, nothing) is usual


def test_a_hand_that_is_never_seen_keeps_its_place() -> None:
    """All zeros between the face and the other hand; by the bones alone it could stand before the face."""
    frames = synthetic_frames(ORDERS[6])
    layout = layout_for(543, 4)
    frames[:, layout.parts["left_hand"]] = 0
    order = ("pose", "left_hand", "face", "right_hand")
    assert in_order(layout, frames) is layout
    assert order_of(in_order(layout, reordered(frames, order))) == list(order)


def test_clip_in_another_order_than_the_model_knows_is_told() -> None:
    usual, clip = layout_for(543, 4), synthetic_frames(GOOGLE)[:40]
    problem = problem_of("clip", clip, usual, usual.parts)
    assert problem is not None
    assert "found keypoints of face, left_hand, pose, right_hand in this order, expected pose, face" in problem
    google = in_order(usual, clip)
    assert problem_of("clip", clip, google, google.parts) is None
    assert problem_of("clip", synthetic_frames(ORDERS[6])[:40], usual, usual.parts) is None
    assert problem_of("clip", synthetic_frames(ORDERS[6])[:40], google, google.parts) is not None


def test_what_only_is_called_so_is_no_holistic_layout() -> None:
    assert is_holistic(layout_for(75, 4))
    assert is_holistic(holistic(("x", "y"), 468, GOOGLE))
    assert not is_holistic(layout_for(184, 4))
    other = KeypointLayout("holistic_75", ("x", "y"), {"pose": tuple(range(75))})
    assert not is_holistic(other)
    assert problem_of("clip", random_frames(4, (75, 2)), other, other.parts) is None


def test_store_has_the_layout_of_its_frames(tmp_path: Path) -> None:
    frames = synthetic_frames(GOOGLE)
    half = len(frames) // 2
    arrays = {"frames": frames, "offsets": [0, half, len(frames)], "y": [0, 1], "signer": ["a", "b"]}
    np.savez(tmp_path / "clips.npz", **{name: np.array(array) for name, array in arrays.items()})
    layout = ClipStore.open(resolve_store(tmp_path / "clips.npz", None, tmp_path / "stores", None)).layout
    assert (layout.parts["pose"][0], layout.parts["left_hand"][0], layout.scale) == (489, 468, (500, 501))
    (told,) = notices_of(layout, frames)
    assert "keypoints come as face, left_hand, pose, right_hand" in told
    assert notices_of(layout_for(543, 4), frames) == []
