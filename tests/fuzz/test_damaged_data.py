"""Damaged data files: told, or the clips that the undamaged files give; where a format has no checksum, finite ones."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.clips import SPLITS

from .formats import FORMATS, files_of, fingerprint_of, laid_out, npz, pose_bytes, prepared
from .strategies import damaged, examples, told

UNCHECKED = (".mmap", ".npy", ".pose", ".csv", ".parquet", ".json")
"""Endings of files without a checksum, in which a changed number is another number."""


@pytest.mark.parametrize("name", FORMATS)
def test_undamaged(name: str) -> None:
    assert fingerprint_of(name) == fingerprint_of.__wrapped__(name)


@pytest.mark.parametrize("name", FORMATS)
@examples(70)
@given(st.data())
def test_damaged_file(name: str, data: st.DataObject) -> None:
    files = dict(files_of(name))
    file = data.draw(st.sampled_from(sorted(files)))
    files[file] = data.draw(damaged(files[file]))
    with laid_out(files) as path:
        store = told(lambda: prepared(path))
    if store is not None and not file.endswith(UNCHECKED):
        assert store.fingerprint == fingerprint_of(name), "other clips, in silence"


def _folder(file: Path) -> None:
    file.mkdir()


def _dangling(file: Path) -> None:
    file.symlink_to("nowhere")


def _loop(file: Path) -> None:
    file.symlink_to(file.name)


def _device(file: Path) -> None:
    file.symlink_to("/dev/zero")


@pytest.mark.parametrize("put", [_folder, _dangling, _loop, _device, os.mkfifo, Path.touch])
@pytest.mark.parametrize("name", FORMATS)
def test_no_file_in_place_of_a_file(name: str, put: Callable[[Path], None]) -> None:
    for file in files_of(name):
        with laid_out(files_of(name)) as path:
            where = path if path.name == file else path / file
            where.unlink()
            put(where)
            store = told(lambda path=path: prepared(path))
            assert store is None, f"{file} is left out in silence"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize("frame", [0, 3])
def test_number_that_is_none_is_told_by_file_and_clip_and_frame(value: float, frame: int) -> None:
    frames = np.ones((9, 20, 3), dtype=np.float64)
    frames[5 + frame, 7, 1] = value
    arrays = {"frames": frames, "offsets": np.array([0, 5, 9]), "y": np.array([0, 1]), "ids": np.array(["good", "bad"])}
    karsl = {"01-train/0001.npz": npz({"good": frames[:5], "bad": frames[5:]})}
    for files in ({"clips.npz": npz(arrays)}, karsl):
        with laid_out(files) as path, pytest.raises(DataError) as caught:
            prepared(path)
        [problem] = caught.value.problems
        assert next(iter(files)) in problem
        assert "bad: found 1 NaN or infinite numbers in 1 of 4 frames" in problem
        assert f"first in frame {frame}," in problem


@pytest.mark.parametrize(("value", "confidence"), [(np.nan, 1.0), (np.inf, 1.0), (0.5, np.nan)])
@pytest.mark.parametrize("version", [0.1, 0.2])
def test_number_that_is_none_in_a_pose_file_is_told(version: float, value: float, confidence: float) -> None:
    files = {**files_of("poses"), "1.pose": pose_bytes(3, version, value, confidence)}
    with laid_out(files) as path, pytest.raises(DataError, match=r"1\.pose: found .* first in frame 2,"):
        prepared(path)


def test_nan_in_packed_frames_is_told() -> None:
    files = dict(files_of("karsl packed"))
    frames = np.frombuffer(files["train_X.mmap"], dtype=np.float32).reshape(-1, 184, 4).copy()
    frames[2, 5, 0] = np.nan  # the second frame of the second clip
    with laid_out({**files, "train_X.mmap": frames.tobytes()}) as path, pytest.raises(DataError) as caught:
        prepared(path)
    assert "train_X.mmap: clip 01-train/0001/1: found 1 NaN" in str(caught.value)
    assert "first in frame 1," in str(caught.value)


def test_splits_have_no_file_of_their_own() -> None:
    assert SPLITS[0] == "", "karsl_packed takes the others for names of files"
