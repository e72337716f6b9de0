"""Which hand signs, and whether that tells who signs or what is signed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sign_data.writers import source

from ds_trainer.tasks.sign.clips import RawClip
from ds_trainer.tasks.sign.handedness import Handedness, is_left_handed
from ds_trainer.tasks.sign.known_layouts import layout_for
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.mirror import right_handed
from ds_trainer.tasks.sign.store import ClipStore
from ds_trainer.tasks.sign.store_writer import write_store

HOLISTIC, KINECT = layout_for(75, 4), layout_for(20, 3)
LEFT, RIGHT, BOTH = (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)


def clip(layout: KeypointLayout, sides: tuple[float, float], waits: int = 0, seed: int = 0) -> np.ndarray:
    """One in which the left and the right hand do so much, after some frames in which none does anything."""
    random = np.random.default_rng(seed)
    frames_TKC = np.tile(random.uniform(0.3, 0.6, (layout.num_keypoints, layout.num_features)), (20 + waits, 1, 1))
    for side, done in zip(("left", "right"), sides, strict=True):
        if layout is HOLISTIC:  # a hand that rests is not seen
            hand = list(layout.parts[f"{side}_hand"])
            frames_TKC[:waits, hand] = 0
            frames_TKC[waits + round(20 * done) :, hand] = 0
        else:
            arm = list(layout.parts[f"{side}_arm"])
            frames_TKC[waits:, arm] += done * random.normal(0, 0.1, (20, len(arm), 3))
    return (frames_TKC + random.normal(0, 1e-3, frames_TKC.shape) * (frames_TKC != 0)).astype(np.float32)


@pytest.mark.parametrize("layout", [HOLISTIC, KINECT])
@pytest.mark.parametrize("waits", [0, 60])
def test_clip_of_the_left_hand_is_told_however_long_it_waits(layout: KeypointLayout, waits: int) -> None:
    sides = [LEFT, RIGHT, BOTH, (0.9, 0.3), (0.3, 0.9), (0.8, 0.6)]
    clips_BTKC = torch.from_numpy(np.stack([clip(layout, side, waits, seed) for seed, side in enumerate(sides)]))
    found = is_left_handed(clips_BTKC, layout)
    assert found is not None
    assert found.tolist() == [True, False, False, True, False, False]


@pytest.mark.parametrize(
    ("done_by_left", "done_by_right", "is_left"), [(1.0, 0.1, True), (0.1, 1.0, False), (1.0, 0.9, False)]
)
def test_hand_that_rests_in_sight_is_told_by_how_little_it_moves(
    done_by_left: float, done_by_right: float, is_left: bool
) -> None:
    """Trackers of the whole body give every hand in every frame, and many cameras see the hands in a lap."""
    clips_BTKC = torch.from_numpy(clip(HOLISTIC, BOTH))[None]
    for side, done in (("left", done_by_left), ("right", done_by_right)):
        way_T11 = done * torch.linspace(0, 0.3, 20)[:, None, None]
        clips_BTKC[0, :, list(HOLISTIC.parts[f"{side}_hand"]), :2] += way_T11
    found = is_left_handed(clips_BTKC, HOLISTIC)
    assert found is not None
    assert found.tolist() == [is_left]


@pytest.mark.parametrize("layout", [HOLISTIC, KINECT])
@pytest.mark.parametrize("factor", [1.0, 1000.0])
def test_in_a_clip_that_stands_still_neither_hand_signs(layout: KeypointLayout, factor: float) -> None:
    """As of one frame: means are then off by what rounding makes of them, which is another in each program."""
    places = torch.rand(200, 1, layout.num_keypoints, layout.num_features, generator=torch.Generator().manual_seed(0))
    found = is_left_handed((factor * places).expand(-1, 90, -1, -1), layout)
    assert found is not None
    assert found.tolist() == [False] * 200


def test_hand_that_is_mostly_out_of_sight_rests_however_far_it_travels() -> None:
    """The left hand holds a letter; on its way to the lap the right one passes by."""
    clips_BTKC = torch.from_numpy(clip(HOLISTIC, (1.0, 0.4)))[None]
    clips_BTKC[0, :8, list(HOLISTIC.parts["right_hand"]), 1] += torch.linspace(0, 1, 8)[:, None]
    found = is_left_handed(clips_BTKC, HOLISTIC)
    assert found is not None
    assert found.tolist() == [True]


@pytest.mark.parametrize("layout", [layout_for(7, 3), replace(HOLISTIC, mirror=None)], ids=["unknown", "no_mirror"])
def test_of_keypoints_without_sides_or_a_mirror_nothing_is_told(
    layout: KeypointLayout, stored: Callable[..., ClipStore]
) -> None:
    clips_BTKC = torch.from_numpy(clip(HOLISTIC, LEFT))[None, :, : layout.num_keypoints, : layout.num_features]
    assert is_left_handed(clips_BTKC, layout) is None
    torch.testing.assert_close(right_handed(clips_BTKC, layout, None, True), clips_BTKC)
    store = replace(stored(HOLISTIC, ann=[LEFT] * 6, bob=[RIGHT] * 6), layout=layout)
    assert Handedness.of(store, np.arange(12)) == Handedness(True, [])


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., ClipStore]:
    def store(layout: KeypointLayout, **sides_of: list[tuple[float, float]]) -> ClipStore:
        clips = [
            RawClip(clip(layout, sides, seed=number), 1, signer, "", f"{signer} {number}", "test")
            for signer, several in sides_of.items()
            for number, sides in enumerate(several)
        ]
        write_store(tmp_path / "store", source(clips, num_signs=1))
        return ClipStore.open(tmp_path / "store")

    return store


@pytest.mark.parametrize("layout", [HOLISTIC, KINECT])
def test_signers_with_a_hand_of_their_own_are_told(stored: Callable[..., ClipStore], layout: KeypointLayout) -> None:
    store = stored(layout, ann=[RIGHT, RIGHT, BOTH, RIGHT, RIGHT], bob=[*[LEFT] * 60, BOTH], cem=[BOTH, RIGHT])
    found = Handedness.of(store, np.arange(len(store)))
    assert found.tells_signers
    assert found.notices == ["seen in a mirror, as signed with the left hand: 60 of 65 clips of one hand (bob)"]
    only_right = Handedness.of(store, np.arange(5))
    assert (only_right.tells_signers, only_right.notices) == (True, [])


@pytest.mark.parametrize("layout", [HOLISTIC, KINECT])
def test_signs_with_a_hand_of_their_own_are_told(stored: Callable[..., ClipStore], layout: KeypointLayout) -> None:
    """By more than a fifth of their clips of one hand that are of the other one; fewer may be mistakes."""
    store = stored(layout, ann=[LEFT, RIGHT, BOTH, RIGHT], bob=[LEFT, RIGHT, RIGHT, RIGHT])
    found = Handedness.of(store, np.arange(len(store)))
    assert not found.tells_signers
    assert "no clip is mirrored for its hand" in found.notices[0]
    assert Handedness.of(store, np.arange(3, len(store))).tells_signers, "one of five"


def test_of_no_clips_nothing_is_said(stored: Callable[..., ClipStore]) -> None:
    assert Handedness.of(stored(HOLISTIC, ann=[RIGHT]), np.zeros(0, dtype=np.int64)) == Handedness(True, [])


@pytest.mark.parametrize("jump", [0.0, 0.3])
@pytest.mark.parametrize("way", [0.0, 0.1])
@pytest.mark.parametrize("num_hidden", [0, 11])
def test_hand_in_sight_that_trembles_or_is_lost_for_a_frame_signs_nothing(
    num_hidden: int, way: float, jump: float
) -> None:
    """The right hand holds a letter, or circles, while the tracker guesses where the other one is, or its fingers."""
    clips_BTKC = torch.from_numpy(clip(HOLISTIC, BOTH))[None]
    left, right = (list(HOLISTIC.parts[f"{side}_hand"]) for side in ("left", "right"))
    angle_T = torch.linspace(0, 6.28, 20)
    clips_BTKC[0, :, right, 0] += way * angle_T.cos()[:, None]
    clips_BTKC[0, :, right, 1] += way * angle_T.sin()[:, None]
    clips_BTKC[0, :, left, :2] += 0.015 * torch.randn(20, 1, 2, generator=torch.Generator().manual_seed(0))
    clips_BTKC[0, 7, left, :2] += jump
    clips_BTKC[0, :, left[len(left) - num_hidden :]] = 0
    found = is_left_handed(clips_BTKC, HOLISTIC)
    assert found is not None
    assert found.tolist() == [False]
