"""What is measured on clips before training begins is measured on those that train: of the others nothing is known."""

import math
from pathlib import Path

import pytest
import torch
from sign_data.writers import source

from ds_trainer.tasks.sign.clips import RawClip
from ds_trainer.tasks.sign.store_writer import write_store

from .examples import BuildTask
from .test_handedness import KINECT, LEFT, RIGHT, clip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Right hands, 20 frames and three clips of the first sign in four train; either hand, 150 and one do not."""
    clips = []
    for signer, split in (("ann", "train"), ("bob", "val"), ("cem", "test")):
        is_train = split == "train"
        for number in range(4):
            hand, waits = (RIGHT if is_train or number % 2 else LEFT, 0 if is_train else 130)
            frames_TKC = clip(KINECT, hand, waits, seed=number + 10 * len(clips))
            sign = 1 if is_train == (number < 3) else 2
            clips.append(RawClip(frames_TKC, sign, signer, split, f"{signer} {number}", "test"))
    write_store(tmp_path / "store", source(clips, num_signs=2))
    return tmp_path / "store"


def test_held_out_clips_say_nothing_of_hands_lengths_and_weights(build: BuildTask, data: Path) -> None:
    given = {"data": str(data), "num_frames": 10, "class_weights": "balanced"}
    task = build(**given)
    described = task.description()
    assert (described["mirrors_left_handed"], described["num_read"]) == (True, 0)
    assert not any("no clip is mirrored" in notice for notice in task.notices)
    losses = task.objective.minimised(torch.zeros(2, 2), torch.tensor([0, 1]))
    three_of_four, one_of_four = 4 / (2 * 3), 4 / (2 * 1)
    torch.testing.assert_close(losses, math.log(2) * torch.tensor([three_of_four, one_of_four]))
    described = build(**given, split="signer:ann").description()
    assert (described["mirrors_left_handed"], described["num_read"]) == (False, 150), "of bob and cem"
