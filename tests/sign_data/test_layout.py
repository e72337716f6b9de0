"""Layouts: every keypoint in one part, mirrors that undo themselves and are symmetrical on real faces."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign import mediapipe
from ds_trainer.tasks.sign.clips import RawClip
from ds_trainer.tasks.sign.known_layouts import layout_for, notices_of
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.layout_file import load_layout
from ds_trainer.tasks.sign.readers import default, pose_file
from ds_trainer.tasks.sign.store_writer import write_store

from .writers import frames as random_frames
from .writers import source

SHARED_KEYPOINTS = Path(__file__).parents[3] / "shared" / "data" / "karsl_keypoints_184.json"
SHAPES = [(184, 4), (20, 3), (75, 4), (543, 4), (553, 3), (7, 2)]
LAYOUT_FILES = sorted((Path(__file__).parents[2] / "ds_configs" / "layouts").glob("*.yaml"))


@pytest.fixture(params=[*SHAPES, *LAYOUT_FILES], ids=lambda param: getattr(param, "stem", str(param)))
def layout(request: pytest.FixtureRequest) -> KeypointLayout:
    return load_layout(request.param) if isinstance(request.param, Path) else layout_for(*request.param)


@pytest.mark.parametrize("shape", SHAPES)
def test_layout_has_the_shape_of_its_clips(shape: tuple[int, int]) -> None:
    layout = layout_for(*shape)
    assert (layout.num_keypoints, layout.num_features) == shape


def test_every_keypoint_is_in_one_part(layout: KeypointLayout) -> None:
    keypoints = [keypoint for part in layout.parts.values() for keypoint in part]
    assert sorted(keypoints) == list(range(layout.num_keypoints))


def test_mirror_undoes_itself_and_keeps_parts_together(layout: KeypointLayout) -> None:
    if layout.mirror is None:
        assert layout.name.startswith("generic")
        return
    assert [layout.mirror[partner] for partner in layout.mirror] == list(range(layout.num_keypoints))
    part_of = {keypoint: part for part, keypoints in layout.parts.items() for keypoint in keypoints}
    for part, keypoints in layout.parts.items():
        other_side = {"left": "right", "right": "left"}
        mirrored = "_".join(other_side.get(word, word) for word in part.split("_"))
        assert {part_of[layout.mirror[keypoint]] for keypoint in keypoints} == {mirrored}


def test_mirror_swaps_what_the_body_is_measured_by(layout: KeypointLayout) -> None:
    if layout.mirror is None:
        return
    assert layout.scale is not None
    assert layout.mirror[layout.scale[0]] == layout.scale[1]
    assert {layout.mirror[keypoint] for keypoint in layout.centre} == set(layout.centre)
    roots = set(layout.part_roots.values())
    assert {layout.mirror[root] for root in roots} == roots
    assert all(root in layout.parts[part] for part, root in layout.part_roots.items())


def test_bones_are_bones_in_the_mirror(layout: KeypointLayout) -> None:
    if layout.mirror is None:
        return
    for keypoint, parent in enumerate(layout.parents):
        assert layout.parents[layout.mirror[keypoint]] == layout.mirror[parent], keypoint


@pytest.mark.parametrize("num_keypoints", [75, 543, 553])
def test_hips_and_what_hangs_on_them_are_the_lower_body(num_keypoints: int) -> None:
    layout = layout_for(num_keypoints, 4)
    hips = (23, 24)
    hanging = [keypoint for keypoint in range(mediapipe.NUM_POSE) if _root(layout, keypoint) in hips]
    assert list(layout.parts["lower_body"]) == hanging
    assert layout.signing_parts == [part for part in layout.parts if part != "lower_body"]


def _root(layout: KeypointLayout, keypoint: int) -> int:
    """What a keypoint hangs on in the end, below the shoulders."""
    while layout.parents[keypoint] not in (keypoint, *layout.centre):
        keypoint = layout.parents[keypoint]
    return keypoint


@pytest.mark.parametrize(
    ("shape", "weight"), [((20, 3), 1), ((184, 4), 0.3), ((75, 4), 0.3), ((543, 3), 0.3), ((25, 3), 1)]
)
def test_depth_counts_less_where_one_camera_guessed_it(shape: tuple[int, int], weight: float) -> None:
    assert layout_for(*shape).depth_weight == weight


def test_depth_that_may_be_a_confidence_is_told() -> None:
    confidence = random_frames(4, (20, 3))
    assert any("if it is a confidence" in notice for notice in notices_of(layout_for(20, 3), confidence))
    beyond = notices_of(layout_for(20, 3), (confidence * (1, 1, 1.1 / confidence.max())).astype(np.float32))
    assert any("z lies between 0 and 1.1 throughout: if it is a confidence" in notice for notice in beyond)
    depths = {"in front of the body": confidence - 0.5, "in metres": confidence + 1.5, "none": confidence * (1, 1, 0)}
    for what, frames in depths.items():
        assert notices_of(layout_for(20, 3), frames.astype(np.float32)) == [], what
    assert notices_of(layout_for(20, 2), confidence[..., :2]) == []


def test_places_of_low_confidence_are_told_where_nothing_is_missing() -> None:
    wholebody = load_layout(next(path for path in LAYOUT_FILES if path.stem == "coco_wholebody_133"))
    frames = random_frames(20, (133, 3)) * np.float32(300) + 1
    frames[..., 2] = 0.9
    assert notices_of(wholebody, frames) == []
    frames[:5, wholebody.parts["right_hand"], 2] = 0.2
    frames[:, wholebody.parts["lower_body"], 2] = 0.1
    told = " ".join(notices_of(wholebody, frames))
    assert told.startswith("confidence is below 0.3 for 25 % of right_hand, and none are missing there:"), told
    written = frames.copy()
    written[:5, wholebody.parts["right_hand"]] = 0
    assert notices_of(wholebody, written) == []
    frames[4, wholebody.parts["right_hand"][3]] = 0
    assert notices_of(wholebody, frames) == [], "whoever gave the clips has decided already what was not seen"
    frames[:, wholebody.parts["right_hand"], :2] = 0
    assert notices_of(wholebody, frames) == [], "all are missing"


def test_fourth_number_that_is_no_visibility_is_refused_and_told(tmp_path: Path) -> None:
    clip = random_frames(4, (20, 4)).clip(max=0.99)
    clip[0, 0, 3] = 1
    milliseconds, states = (clip * np.float32([1, 1, 1, most]) for most in (1.4e12, 3))
    known = KeypointLayout("mine", ("x", "y", "z", "time"), layout_for(20, 4).parts)
    expected = r"a test: found 1\.\d+e\+12 as the fourth number .*, expected a visibility, 0 to 1; leave it out"
    with pytest.raises(DataError, match=expected):
        write_store(tmp_path / "store", source([RawClip(milliseconds, 1, "", "", "a", "b")]))
    assert re.search(r"time reaches 1\.\d+e\+12", " ".join(notices_of(known, milliseconds)))
    write_store(tmp_path / "store", source([RawClip(states, 1, "", "", "a", "b")]))
    assert notices_of(known, states) == []
    states[2, 5, 3] = 900
    assert notices_of(known, states) == [], "one wrong number destroys nothing"
    write_store(tmp_path / "mine", source([RawClip(milliseconds, 1, "", "", "a", "b")], layout=known))


def test_layout_of_some_keypoints_says_what_the_whole_one_says(layout: KeypointLayout) -> None:
    for owns in layout.parts.values():
        taken = layout.needed_for(owns)
        some = layout.only(taken)
        assert some.num_keypoints == len(taken)
        assert set(owns) <= set(taken)
        for number, keypoint in enumerate(taken):
            if layout.mirror is not None:
                assert some.mirror is not None
                assert taken[some.mirror[number]] == layout.mirror[keypoint]
            if layout.parents:
                assert taken[some.parents[number]] == layout.parents[keypoint]
        assert {taken[keypoint] for keypoint in some.centre} == set(layout.centre)
        for part, root in some.part_roots.items():
            assert taken[root] == layout.part_roots[part]
            assert [taken[keypoint] for keypoint in some.parts[part]] == list(layout.parts[part])
    assert layout.only(range(layout.num_keypoints)) == layout


def test_layout_survives_json(layout: KeypointLayout) -> None:
    assert KeypointLayout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout


@pytest.mark.parametrize(("num_features", "coordinates"), [(2, 2), (3, 3), (4, 3), (6, 0)])
def test_features_are_coordinates_only_where_known(num_features: int, coordinates: int) -> None:
    assert layout_for(7, num_features).num_coordinates == coordinates


@pytest.mark.parametrize(
    ("one", "other"),
    [(33, 263), (61, 291), (133, 362), (70, 300), (105, 334), (234, 454), (468, 473), (469, 476), (10, 10), (152, 152)],
)
def test_face_mirror_has_the_known_pairs(one: int, other: int) -> None:
    assert (mediapipe.FACE_MIRROR[one], mediapipe.FACE_MIRROR[other]) == (other, one)


def test_karsl_keypoints_are_those_of_the_reference() -> None:
    if not SHARED_KEYPOINTS.is_file():
        pytest.skip("the reference list of the KArSL keypoints is not beside this repository")
    reference = json.loads(SHARED_KEYPOINTS.read_text())
    assert list(mediapipe.KARSL_POSE) == reference["pose"]
    assert list(mediapipe.KARSL_FACE) == reference["face"]


def test_face_pairs_are_symmetrical_on_real_faces() -> None:
    pytest.importorskip("pose_format", reason="the demo extra is not installed")
    pytest.importorskip("spoken_to_signed", reason="the demo extra is not installed")
    layout = layout_for(184, 4)
    paths = sorted(default.find().rglob("*.pose"))[::40]
    faces_NKD = np.concatenate([pose_file.read_pose(path)[:, layout.parts["face"], :2] for path in paths])
    width = np.ptp(faces_NKD[..., 0], axis=1).mean()
    mean_KD = (faces_NKD - faces_NKD.mean(axis=1, keepdims=True)).mean(axis=0)
    first = layout.parts["face"][0]
    assert layout.mirror is not None
    mirror = [layout.mirror[keypoint] - first for keypoint in layout.parts["face"]]
    reflected_KD = mean_KD[mirror] * (-1, 1)
    # The mean face is turned and tilted a little; a wrong pair is off by at least the distance to its neighbour.
    reflected_KD = reflected_KD @ _rotation(reflected_KD, mean_KD)
    assert np.linalg.norm(reflected_KD - mean_KD, axis=1).max() < 0.03 * width


def _rotation(points: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """The rotation that brings points onto others with the least squared error (Kabsch)."""
    u, _, v = np.linalg.svd(points.T @ onto)
    return np.asarray(u @ np.diag([1, np.linalg.det(u @ v)]) @ v)


def test_hands_whose_place_nothing_tells_are_noticed() -> None:
    hands = {"left_hand": tuple(range(21)), "right_hand": tuple(range(21, 42))}
    frames = np.random.default_rng(0).normal(size=(9, 43, 3)).astype(np.float32)
    alone = KeypointLayout("hands", ("x", "y", "z"), hands, part_roots={"left_hand": 0, "right_hand": 21})
    (told,) = notices_of(alone, frames[:, :42])
    assert "leave part_roots out of --layout" in told
    assert notices_of(replace(alone, parts={**hands, "body": (42,)}), frames) == []
    assert notices_of(replace(alone, part_roots={}), frames[:, :42]) == []
