"""Recordings of some signers in which y runs the other way are told."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ds_trainer.tasks.sign.clips import RawClip
from ds_trainer.tasks.sign.known_layouts import layout_for
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.splits import SplitRule, make_splits
from ds_trainer.tasks.sign.store import ClipStore
from ds_trainer.tasks.sign.store_writer import write_store
from ds_trainer.tasks.sign.upright import head_side, turned_from, turned_notices

from .writers import source

HEADS = {"kinect": (layout_for(20, 3), (0, 1)), "holistic": (layout_for(75, 3), range(11))}
HEADS["face"] = (layout_for(184, 4), range(6, 142))


def store_of(path: Path, layout: KeypointLayout, head: Sequence[int], sides: Sequence[float]) -> ClipStore:
    """A signer for each of `sides`, which is how far above the shoulders the head lies along y; noise is 1."""
    random = np.random.default_rng(0)
    clips = []
    for signer, side in enumerate(sides):
        for number in range(6):
            frames_TKC = random.normal(0, 1, (9, layout.num_keypoints, layout.num_features)).astype(np.float32)
            frames_TKC[:, list(head), 1] += side
            frames_TKC[..., 1] += 30  # from the corner of the image
            frames_TKC[:3, list(head)] = 0  # not found
            frames_TKC[4, layout.centre[0]] = 0
            frames_TKC[5, list(layout.centre)] = 0
            clips.append(RawClip(frames_TKC, 1 + number % 2, f"s{signer}", "", f"{signer}-{number}", "test"))
    write_store(path, source(clips, layout=layout))
    return ClipStore.open(path)


@pytest.mark.parametrize("of", HEADS)
def test_signers_whose_y_runs_the_other_way_are_told(tmp_path: Path, of: str) -> None:
    store = store_of(tmp_path / "store", *HEADS[of], sides=[9, -9, 9, -9, 9])
    (told,) = turned_notices(store, np.arange(len(store)))
    assert told.startswith("s1, s3: y runs the other way than in recordings of the other signers; negate y")
    assert told in make_splits(store, SplitRule(split="signer:s1")).notices
    assert turned_notices(store, np.flatnonzero(store.signer % 2 == 1)) == []


@pytest.mark.parametrize("sides", [[9, 9, 9], [-9, -9, -9], [9, -0.5, 9], [9]])
def test_signers_who_are_alike_or_lie_down_are_not_told(tmp_path: Path, sides: list[float]) -> None:
    store = store_of(tmp_path / "store", *HEADS["kinect"], sides=sides)
    assert turned_notices(store, np.arange(len(store))) == []


@pytest.mark.parametrize(("sides", "usual"), [([9, 9, -9], 1), ([-9, -9, 9], -1), ([0, 0], 0), ([], 0)])
def test_which_way_most_run_is_known_of_a_model(tmp_path: Path, sides: list[float], usual: int) -> None:
    store = store_of(tmp_path / "store", *HEADS["kinect"], sides=[*sides, 9])
    assert head_side(store, np.flatnonzero(store.signer < len(sides))) == usual


def test_signer_who_lies_is_not_told_though_the_head_is_a_little_lower(tmp_path: Path) -> None:
    """A video that is turned by a right angle is none whose y runs the other way."""
    upright = store_of(tmp_path / "store", *HEADS["kinect"], sides=[9, 9, 9])
    frames_NKC, of_second = upright.frames.copy(), slice(*upright.offsets[[6, 12]])
    x_NK, y_NK = frames_NKC[of_second, :, 0].copy(), frames_NKC[of_second, :, 1].copy()
    frames_NKC[of_second, :, 0], frames_NKC[of_second, :, 1] = 0.87 * y_NK, -0.5 * y_NK
    store = replace(upright, frames=frames_NKC)
    assert turned_notices(store, np.arange(len(store))) == []
    frames_NKC[of_second, :, 0] = x_NK
    (told,) = turned_notices(store, np.arange(len(store)))
    assert told.startswith("s1: y runs the other way")


def test_scored_signers_are_compared_with_those_of_training(tmp_path: Path) -> None:
    trained = store_of(tmp_path / "trained", *HEADS["kinect"], sides=[9, 9, -9])
    scored = store_of(tmp_path / "scored", *HEADS["holistic"], sides=[-9, 9])
    (told,) = turned_from(scored, np.arange(len(scored)), trained, np.arange(len(trained)))
    assert told.startswith("s0: y runs the other way than in the training clips; negate y")


def test_layout_without_a_head_tells_nothing(tmp_path: Path) -> None:
    layout = KeypointLayout("mine", ("x", "y"), {"arms": (0, 1, 2, 3)}, centre=(0, 1), scale=(0, 1))
    store = store_of(tmp_path / "store", layout, (2, 3), sides=[9, -9, 9])
    assert turned_notices(store, np.arange(len(store))) == []
