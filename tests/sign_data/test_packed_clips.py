"""Packed clips that are not what they seem: in a folder of files as by themselves, and arrays that nobody reads."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.readers.clip_file import load_clips

from .test_readers import read
from .writers import frames, packed_arrays


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"frames": frames(40), "offsets": np.array([10, 25, 90]), "ids": None}, "rise from 0 to the 40 frames"),
        ({"offsets": np.array([0, 5, 2, 9])}, "found 5 before 2 at clip 1"),
        ({"offsets": np.array([0.0, 2.5, 9.0])}, "offsets: found float64 of shape"),
        ({"offsets": np.array([[0, 2, 5, 9]])}, "offsets: found int64 of shape"),
        ({"offsets": np.array(9)}, "offsets: found int64 of shape"),
        ({"offsets": np.zeros(0, np.int64)}, "offsets: found 0, expected 1"),
        ({"ids": np.array(["a", "b"])}, r"ids: found shape \(2,\), expected \(3,\)"),
        ({"frames": frames(9).reshape(9, 60)}, r"frames: found shape \(9, 60\)"),
    ],
)
def test_packed_clips_in_a_folder_are_checked(tmp_path: Path, changed: dict[str, Any], expected: str) -> None:
    (tmp_path / "hello").mkdir()
    np.savez(tmp_path / "hello" / "clips.npz", **packed_arrays(**changed))
    with pytest.raises(DataError, match=rf"clips\.npz: .*{expected}"):
        load_clips(tmp_path / "hello" / "clips.npz")
    with pytest.raises(DataError, match=expected):
        read(tmp_path)


def test_labels_of_packed_clips_in_a_folder_do_not_matter(tmp_path: Path) -> None:
    np.savez(tmp_path / "clips.npz", **packed_arrays(y=np.array([0.5, 7.0]), label_names=np.zeros(3)))
    assert [len(clip) for clip in load_clips(tmp_path / "clips.npz").values()] == [2, 3, 4]


def test_arrays_that_are_not_used_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("ds_trainer"), "propagate", True)
    np.savez(tmp_path / "known.npz", **packed_arrays(fps=25.0, split=np.array(["train", "val", "test"])))
    read(tmp_path / "known.npz")
    assert caplog.text == ""
    np.savez(tmp_path / "clips.npz", **packed_arrays(splits=np.array(["train", "val", "test"]), q=1, w=2))
    read(tmp_path / "clips.npz")
    (told,) = caplog.messages
    assert told.endswith(
        "clips.npz: arrays that are not used: splits: did you mean 'split'?; q: known names: claims_unseen_signers, "
        "fps, frames, ids, label_names, offsets, signer, split, y; w: known names: as above"
    )
