"""Folders of the JSON files that OpenPose writes, one a frame."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.layout_file import load_layout
from ds_trainer.tasks.sign.prepare import resolve_store
from ds_trainer.tasks.sign.readers.openpose import read_openpose
from ds_trainer.tasks.sign.store import ClipStore
from ds_trainer.tasks.sign.unlabelled import clips_in

from .writers import frames, person, write_frames, write_index

LAYOUTS_DIR = Path(__file__).parents[2] / "ds_configs" / "layouts"


def prepared(data: Path, layout: Path | None = None) -> ClipStore:
    return ClipStore.open(resolve_store(data, None, data.parent / "stores", layout))


@pytest.mark.parametrize("num_keypoints", [137, 67])
def test_folders_of_openpose_are_clips_of_a_known_layout(tmp_path: Path, num_keypoints: int) -> None:
    data = tmp_path / "data"
    clips = [frames(2 + number, (num_keypoints, 3), seed=number) for number in range(4)]
    folders = [data / signer / sign / "take.1" for signer in ("ann", "bob") for sign in ("bye", "hello")]
    for folder, clip in zip(folders, clips, strict=True):
        write_frames(folder, [[person(frame)] for frame in clip])
    store = prepared(data)
    np.testing.assert_array_equal(store.frames, np.concatenate(clips))
    assert (store.sign_names, store.signer_names) == (["bye", "hello"], ["ann", "bob"])
    assert store.layout == load_layout(LAYOUTS_DIR / f"openpose_{num_keypoints}.yaml")
    rows = [{"path": str(folder.relative_to(data)), "sign": folder.parent.name} for folder in folders[2:]]
    write_index(data / "index.csv", rows)
    by_table = prepared(data)
    np.testing.assert_array_equal(by_table.frames, np.concatenate(clips[2:]))
    assert by_table.layout == store.layout
    found = dict(clips_in(data / "ann"))
    assert list(found) == [str(folder) for folder in folders[:2]]
    np.testing.assert_array_equal(next(clips_in(folders[3]))[1], clips[3])


def test_changed_frame_is_noticed(tmp_path: Path) -> None:
    for sign in ("bye", "hello"):
        write_frames(tmp_path / "data" / sign / "1", [[person(frame)] for frame in frames(2, (67, 3))])
    before = prepared(tmp_path / "data")
    write_frames(tmp_path / "data" / "bye" / "1", [[person(frame)] for frame in frames(2, (67, 3), seed=9)])
    assert prepared(tmp_path / "data").fingerprint != before.fingerprint


def test_layout_that_is_given_stands(tmp_path: Path) -> None:
    write_frames(tmp_path / "data" / "bye" / "1", [[person(frame)] for frame in frames(2, (67, 3))])
    own = tmp_path / "own.yaml"
    own.write_text("features: [x, y, sureness]\nparts: {all: 0-66}\n")
    assert prepared(tmp_path / "data", layout=own).layout.features == ("x", "y", "sureness")


def test_other_keypoints_of_openpose_have_a_confidence(tmp_path: Path) -> None:
    body = {"pose_keypoints_2d": frames(1, (25, 3)).ravel().tolist()}
    write_frames(tmp_path / "data" / "bye" / "1", [[body]])
    layout = prepared(tmp_path / "data").layout
    assert (layout.name, layout.features) == ("generic_25", ("x", "y", "confidence"))


def test_frames_are_in_the_order_of_their_numbers_and_of_one_person(tmp_path: Path) -> None:
    large, small, unsure = frames(3, (67, 3), seed=1)
    small[:, :2] *= 0.1
    unsure *= (2, 2, 0.05)
    large[7] = (3, 4, 0)
    people = [[person(small), person(large), person(unsure)], [], [person(unsure)]]
    write_frames(tmp_path / "clip", people, numbers=(9, 10, 11))
    large[7] = 0
    np.testing.assert_array_equal(read_openpose(tmp_path / "clip"), [large, np.zeros((67, 3)), unsure])


HAND = {"hand_left_keypoints_2d": [0.5] * 63}


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ('{"people": [', r"v_2_keypoints\.json: cannot be read .*, expected a whole \.json file"),
        ("[]", r"v_2_keypoints\.json: found \[\], expected people as OpenPose writes them"),
        ({"people": [7]}, r"v_2_keypoints\.json: found .*, expected people"),
        ({"people": [{}]}, r"v_2_keypoints\.json: found a person without pose_keypoints_2d, "),
        ({"people": [{**HAND, "pose_keypoints_2d": [1, 2]}]}, r"v_2_.*: pose_keypoints_2d: found 2 values, expected"),
        ({"people": [{**HAND, "pose_keypoints_2d": ["1"] * 3}]}, r"v_2_.*: pose_keypoints_2d: found 3 values, exp"),
        ({"people": [{**HAND, "pose_keypoints_2d": "a"}]}, r"v_2_.*: pose_keypoints_2d: found 'a', expected three"),
        ({"people": [HAND]}, r"v_2_.*: found keypoints 0 of pose, 0 of face, 21 and 0 of hands, expected 25 of pose"),
    ],
)
def test_damaged_frame_is_told_by_file(tmp_path: Path, second: str | Mapping[str, Any], expected: str) -> None:
    for sign in ("bye", "hello"):
        write_frames(tmp_path / "data" / sign / "1", [[person(frame)] for frame in frames(3, (67, 3))])
    text = second if isinstance(second, str) else json.dumps(second)
    (tmp_path / "data" / "bye" / "1" / "v_2_keypoints.json").write_text(text)
    with pytest.raises(DataError, match=expected):
        prepared(tmp_path / "data")


@pytest.mark.parametrize("value", [float("nan"), 1e39])
def test_number_that_is_none_is_told(tmp_path: Path, value: float) -> None:
    wrong = {**person(frames(1, (67, 3))[0]), "pose_keypoints_2d": [1.0, value, 1.0] * 25}
    write_frames(tmp_path / "data" / "bye" / "1", [[person(frames(1, (67, 3))[0])], [wrong, wrong]])
    with pytest.raises(DataError, match=r"bye/1: found 25 NaN or infinite .* first in frame 1,"):
        prepared(tmp_path / "data")


def test_nobody_and_two_videos_in_a_folder_are_told(tmp_path: Path) -> None:
    write_frames(tmp_path / "nobody", [[], []])
    with pytest.raises(DataError, match="nobody: found nobody in 2 frames, expected a signer"):
        read_openpose(tmp_path / "nobody")
    (tmp_path / "nobody" / "other_1_keypoints.json").write_text('{"people": []}')
    with pytest.raises(DataError, match=r"found frames of other_\.\.\. and v_\.\.\., expected those of one video"):
        read_openpose(tmp_path / "nobody")


def test_one_clip_is_no_data(tmp_path: Path) -> None:
    write_frames(tmp_path / "bye" / "1", [[person(frame)] for frame in frames(2, (67, 3))])
    with pytest.raises(DataError, match=r"1: found one clip of OpenPose's, expected \{sign\}/\{clip\}"):
        prepared(tmp_path / "bye" / "1")


def test_shipped_layout_without_a_face_is_the_other_one_without_it() -> None:
    whole, faceless = (load_layout(LAYOUTS_DIR / f"openpose_{number}.yaml") for number in (137, 67))
    kept: Sequence[int] = [keypoint for keypoint in range(137) if keypoint not in whole.parts["face"]]
    assert replace(whole.only(kept), name=faceless.name) == faceless
