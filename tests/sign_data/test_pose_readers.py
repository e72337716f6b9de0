"""The embedded default and folders of .pose files; most of it needs the demo extra."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.clips import ClipSource, RawClip
from ds_trainer.tasks.sign.known_layouts import layout_for
from ds_trainer.tasks.sign.prepare import resolve_store
from ds_trainer.tasks.sign.readers import default, find_reader, pose_file

from .writers import KARSL_SHAPE, write_index


def _read(path: Path) -> tuple[ClipSource, list[RawClip]]:
    source = find_reader(path).read(path)
    return source, [clip for clip in source.clips if isinstance(clip, RawClip)]


@pytest.fixture(scope="module")
def default_clips() -> list[RawClip]:
    pytest.importorskip("pose_format", reason="the demo extra is not installed")
    pytest.importorskip("spoken_to_signed", reason="the demo extra is not installed")
    source = default.read(default.find())
    assert source.claims_unseen_signers
    assert len(source.sign_names) == 26
    return [clip for clip in source.clips if isinstance(clip, RawClip)]


def test_default_is_410_clips_of_26_letters_in_16_languages(default_clips: list[RawClip]) -> None:
    assert len(default_clips) == 410
    assert Counter(clip.split for clip in default_clips) == {"train": 309, "test": 101}
    assert {clip.signer for clip in default_clips if clip.split == "test"} == {"cse", "ise", "sgg", "tsm"}
    assert "fsl" not in {clip.signer for clip in default_clips}
    assert {clip.sign for clip in default_clips} == set(range(1, 27))
    assert set(Counter((clip.sign, clip.signer) for clip in default_clips).values()) == {1}
    lengths = [len(clip.frames) for clip in default_clips]
    assert (min(lengths), max(lengths)) == (17, 46)


def test_default_clips_are_fractions_of_the_image(default_clips: list[RawClip]) -> None:
    everything = np.concatenate([clip.frames for clip in default_clips])
    assert everything.shape[1:] == KARSL_SHAPE
    assert np.isfinite(everything).all()
    visibility = everything[..., 3]
    assert visibility.min() == 0
    assert visibility.max() == 1
    assert (everything[visibility == 0] == 0).all()
    shoulders_NKD = everything[:, :2, :3]
    # The recordings are scaled so that the shoulders are 200 of 500 pixels apart, around the middle of the image.
    np.testing.assert_allclose(np.median(shoulders_NKD, axis=0), [[0.7, 0.5, 0], [0.3, 0.5, 0]], atol=0.02)
    left, right = everything[:, 4], everything[:, 5]  # the body's wrists
    for hand, own, other in (("left_hand", left, right), ("right_hand", right, left)):
        palm = everything[:, layout_for(*KARSL_SHAPE).parts[hand][0]]
        own, other = (palm[palm[:, 3] > 0] - wrist[palm[:, 3] > 0] for wrist in (own, other))
        assert (np.hypot(*own[:, :2].T) < np.hypot(*other[:, :2].T)).mean() > 0.95
    # A face is about as deep as it is wide: depth has the unit of x.
    face = everything[:, 6:142]
    assert 0.3 < np.ptp(face[..., 2], axis=1).mean() / np.ptp(face[..., 0], axis=1).mean() < 3


@pytest.mark.parametrize(("width", "height", "depth"), [(400, 200, 0.25), (200, 400, 0.125)])
def test_units_are_the_larger_side_of_an_image_whose_width_is_that_of_depth(
    width: int, height: int, depth: float
) -> None:
    """The shoulders are 250.2 deep in the middle, and a keypoint lies a quarter of the width behind them."""
    recorded_TKC = np.array([[[20, 40, 250.1], [60, 40, 250.3], [100, 50, 250.45], [7, 7, 7]]])
    found_TKC = pose_file.in_image_units(recorded_TKC, np.array([[1.0, 1.0, 0.5, 0.0]]), width, height)
    np.testing.assert_allclose(found_TKC[0, 2:], [[0.25, 0.125, depth, 0.5], [0, 0, 0, 0]], atol=1e-6)


def test_of_two_people_the_first_is_read(tmp_path: Path, default_clips: list[RawClip]) -> None:
    from pose_format import Pose
    from pose_format.numpy import NumPyPoseBody

    alone = Pose.read(Path(default_clips[0].origin).read_bytes())
    data, confidence = np.ma.getdata(alone.body.data), np.ma.getdata(alone.body.confidence)
    both = NumPyPoseBody(alone.body.fps, np.concatenate([data, data + 50], 1), np.concatenate([confidence] * 2, 1))
    with open(tmp_path / "both.pose", "wb") as file:
        Pose(alone.header, both).write(file)
    np.testing.assert_array_equal(pose_file.read_pose(tmp_path / "both.pose"), default_clips[0].frames)


def test_pose_folder_has_the_clips_of_its_index(tmp_path: Path, default_clips: list[RawClip]) -> None:
    rows = []
    for clip in default_clips[:3]:
        (tmp_path / Path(clip.origin).name).symlink_to(clip.origin)
        rows.append({"path": Path(clip.origin).name, "gloss": f"sign {clip.sign}", "signer": "ann", "split": "train"})
    write_index(tmp_path / "index.csv", rows)
    source, clips = _read(tmp_path)
    assert list(source.sign_names) == ["sign 1", "sign 2", "sign 3"]
    assert [(clip.sign, clip.signer, clip.split) for clip in clips] == [(n, "ann", "train") for n in (1, 2, 3)]
    np.testing.assert_array_equal(clips[2].frames, default_clips[2].frames)


def test_pose_folder_names_what_its_index_lacks(tmp_path: Path) -> None:
    (tmp_path / "a.pose").write_bytes(b"")
    write_index(tmp_path / "index.csv", [{"path": "a.pose", "meaning": "hello"}])
    with pytest.raises(DataError, match="found path, meaning, expected the columns path and one of sign"):
        _read(tmp_path)


def test_damaged_and_missing_pose_files_are_named(tmp_path: Path, default_clips: list[RawClip]) -> None:
    damaged = tmp_path / "damaged.pose"
    damaged.write_bytes(Path(default_clips[0].origin).read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"damaged\.pose: cannot be read"):
        pose_file.read_pose(damaged)
    with pytest.raises(DataError, match=r"absent\.pose: cannot be read .*No such file"):
        pose_file.read_pose(tmp_path / "absent.pose")


@pytest.mark.parametrize("package", ["spoken_to_signed", "pose_format"])
def test_default_without_its_packages_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=r"pip install ds-trainer\[demo\]"):
        resolve_store("default", None, tmp_path, None)


def test_pose_file_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pose_format", None)
    with pytest.raises(DataError, match=r"a\.pose: .* pip install ds-trainer\[demo\]"):
        pose_file.read_pose(tmp_path / "a.pose")
