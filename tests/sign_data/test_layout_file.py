"""A layout that a user describes: read as it is written, refused by name, and what a store of such clips is read by."""

from pathlib import Path

import numpy as np
import pytest

from ds_trainer.errors import DataError, SettingsError
from ds_trainer.tasks.sign.known_layouts import NUM_KEYPOINTS, layout_for
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.layout_file import load_layout
from ds_trainer.tasks.sign.prepare import main, resolve_store
from ds_trainer.tasks.sign.store import ClipStore

from .writers import frames, packed_arrays

LAYOUTS_DIR = Path(__file__).parents[2] / "ds_configs" / "layouts"
WRITTEN = """
features: [x, y, confidence]
parts:
  pose: 0-4
  left_hand: [5, 6]
  right_hand: [7, 8]
mirror:
  - [1, 2]
  - [[3, 5-6], [4, 7-8]]
centre: [1, 2]
scale: [1, 2]
part_roots: {left_hand: 5, right_hand: 7}
bones:
  - [3-4, 1-2]
  - [[6, 8], [5, 7]]
"""
EXPECTED = KeypointLayout(
    name="nine",
    features=("x", "y", "confidence"),
    parts={"pose": (0, 1, 2, 3, 4), "left_hand": (5, 6), "right_hand": (7, 8)},
    mirror=(0, 2, 1, 4, 3, 7, 8, 5, 6),
    centre=(1, 2),
    scale=(1, 2),
    part_roots={"left_hand": 5, "right_hand": 7},
    parents=(0, 1, 2, 1, 2, 5, 5, 7, 7),
)


@pytest.fixture
def layout_path(tmp_path: Path) -> Path:
    return write(tmp_path, WRITTEN)


@pytest.fixture
def data_path(tmp_path: Path) -> Path:
    np.savez(tmp_path / "clips.npz", **packed_arrays(frames=frames(9, (9, 3))))
    return tmp_path / "clips.npz"


def write(folder: Path, text: str) -> Path:
    path = folder / "nine.yaml"
    path.write_text(text)
    return path


def test_layout_is_read_as_it_is_written(layout_path: Path) -> None:
    layout = load_layout(layout_path)
    assert layout == EXPECTED
    assert (layout.num_coordinates, layout.depth_weight, layout.is_known) == (2, 0.3, True)


def test_ranges_run_both_ways(tmp_path: Path) -> None:
    text = "features: [x, y]\nparts: {face: 0-5}\nmirror: [[0-2, 5-3]]\n"
    assert load_layout(write(tmp_path, text)).mirror == (5, 4, 3, 2, 1, 0)


def test_what_is_not_said_is_unknown(tmp_path: Path) -> None:
    text = "features: [x, y, z]\nparts: {all: 0-24}\nis_metric: true\n"
    layout = load_layout(write(tmp_path, text))
    assert layout == KeypointLayout("nine", ("x", "y", "z"), {"all": tuple(range(25))}, is_metric=True)
    assert (layout.mirror, layout.depth_weight) == (None, 1.0)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (("features: [x, y, confidence]", ""), "features: missing; expected what each number of a keypoint is"),
        (("features", "feature"), "feature: unknown name; did you mean 'features'?"),
        (("[x, y, confidence]", "[x, confidence, y]"), "features: found x, confidence, y; expected x, y or x, y, z in"),
        (("[x, y, confidence]", "[x]"), "features: found x; expected x, y or x, y, z in front"),
        (("pose: 0-4", "pose: 0-3"), "parts: found no keypoint 4, expected all from 0 to 8; give it a part"),
        (("pose: 0-4", "pose: 0-5"), "parts: found keypoint 5 twice, expected each in one part"),
        (("pose: 0-4", "pose: nose"), "found 'nose'; input should be a valid integer"),
        (("pose: 0-4", "pose: 0-999999"), "expected less than 100000 keypoints"),
        (("pose: 0-4", "pose: -1"), "input should be greater than or equal to 0"),
        (("- [1, 2]", "- [1, 9]"), "mirror: found keypoint 9, expected 0 to 8, as parts name them"),
        (("- [1, 2]", "- [1-2, 3]"), "mirror: found 2 keypoints beside 1, expected as many; mend a range"),
        (("- [1, 2]", "- [1, 3]"), "mirror: found keypoint 3 beside 4 and beside 1, expected one partner"),
        (("[3-4, 1-2]", "[3-4, 4-3]"), "keypoints hang on one another in a circle"),
        (("[3-4, 1-2]", "[[3, 3], [1, 2]]"), "bones: found keypoint 3 on 1 and on 2, expected one that it hangs on"),
        (("[3-4, 1-2]", "[3, 3]"), "bones: found keypoint 3 on itself, expected another; leave it out"),
        (("- [1, 2]", "- [1, 2]\n  - [1, 0]"), "mirror: found keypoint 1 beside 2 and beside 0, expected one partner"),
        (("scale: [1, 2]", "scale: [2, 2]"), "scale: found keypoint 2 twice, expected two whose distance is the size"),
        (("[3-4, 1-2]", "[3-4, [1, 30]]"), "bones: found keypoint 30, expected 0 to 8"),
        (("scale: [1, 2]", "scale: [1, 20]"), "the centre or the scale is measured by keypoints that are not there"),
        (("left_hand: 5,", "left_hand: 1,"), "the root of a part is not in it"),
        (("parts:", "parts: {}\nothers:"), "parts: found {}"),
        (("features:", "features"), "is not YAML"),
    ],
)
def test_what_contradicts_itself_is_refused_by_name(tmp_path: Path, changed: tuple[str, str], problem: str) -> None:
    assert changed[0] in WRITTEN
    path = write(tmp_path, WRITTEN.replace(*changed, 1))
    with pytest.raises(SettingsError) as told:
        load_layout(path)
    assert all(line.startswith(str(path)) for line in told.value.problems)
    assert any(problem in line for line in told.value.problems), told.value.problems


def test_parts_without_keypoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"parts\.all: found \[\]; value should have at least 1 item"):
        load_layout(write(tmp_path, "features: [x, y]\nparts: {all: []}\n"))


def test_missing_file_is_told_with_the_flag(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^--layout .*nothing\.yaml: no such file; .* holds no YAML file$"):
        load_layout(tmp_path / "nothing.yaml")


def test_store_has_the_layout_that_was_described(data_path: Path, layout_path: Path, tmp_path: Path) -> None:
    store_dir = resolve_store(data_path, None, tmp_path, layout=layout_path)
    assert ClipStore.open(store_dir).layout == EXPECTED
    unknown = resolve_store(data_path, None, tmp_path, None)
    assert ClipStore.open(unknown).layout == layout_for(9, 3), (
        "without it what their number says, in a store of its own"
    )
    assert resolve_store(store_dir, None, tmp_path, layout=layout_path) == store_dir
    with pytest.raises(DataError, match=r"--layout nine: .* is a prepared store of another layout; leave --layout out"):
        resolve_store(unknown, None, tmp_path, layout=layout_path)


def test_changed_layout_is_prepared_anew(data_path: Path, layout_path: Path, tmp_path: Path) -> None:
    first = resolve_store(data_path, None, tmp_path, layout=layout_path)
    write(tmp_path, WRITTEN.replace("centre: [1, 2]", "centre: [0]"))
    second = resolve_store(data_path, None, tmp_path, layout=layout_path)
    assert ClipStore.open(first).layout.centre == (1, 2)
    assert ClipStore.open(second).layout.centre == (0,)


def test_layout_of_other_clips_is_refused(data_path: Path, tmp_path: Path) -> None:
    path = write(tmp_path, "features: [x, y]\nparts: {all: 0-8}\n")
    with pytest.raises(
        DataError, match=r"found clips of 9 .* x 3 features, expected 9 .* x 2 features as the layout nine says"
    ):
        resolve_store(data_path, None, tmp_path, layout=path)


def test_clips_are_prepared_with_a_layout(data_path: Path, layout_path: Path, tmp_path: Path) -> None:
    flags = ["--data", str(data_path), "--stores_dir", str(tmp_path / "stores"), "--layout", str(layout_path)]
    assert main(flags) == 0
    (store_dir,) = (tmp_path / "stores").glob("clips-*")
    assert ClipStore.open(store_dir).layout == EXPECTED


def test_shipped_layouts_name_both_hands() -> None:
    """By these names left-handed signers are told, and by the roots hands are seen from their wrists."""
    for path, num_keypoints in (("coco_wholebody_133", 133), ("openpose_137", 137)):
        layout = load_layout(LAYOUTS_DIR / f"{path}.yaml")
        assert layout.num_keypoints == num_keypoints
        assert layout.part_roots.keys() == {"left_hand", "right_hand"}
        assert {len(layout.parts[hand]) for hand in layout.part_roots} == {21}
        assert layout.signing_parts == ["pose", "face", "left_hand", "right_hand"]


def test_layout_of_the_page_is_one(tmp_path: Path) -> None:
    page = (LAYOUTS_DIR.parents[1] / "docs" / "data.md").read_text()
    lines = page[page.index("    features: [x, y, confidence]") :].split("\n\n")[0].splitlines()
    layout = load_layout(write(tmp_path, "\n".join(line.removeprefix("    ") for line in lines)))
    assert (layout.num_keypoints, layout.num_coordinates, len(layout.bones)) == (49, 2, 4)
    assert layout.mirror is not None
    assert [layout.mirror[keypoint] for keypoint in (0, 1, 7, 27)] == [0, 2, 28, 48]


def test_rows_of_a_shipped_layout_are_told_how_to_be_reshaped() -> None:
    assert {load_layout(path).num_keypoints for path in LAYOUTS_DIR.glob("*.yaml")} <= set(NUM_KEYPOINTS)
