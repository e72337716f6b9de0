"""Text files beside the clips, and names of files, that somebody made up."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds_trainer.errors import DataError, SettingsError
from ds_trainer.tasks.sign.labels import load_labels
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.layout_file import load_layout

from .formats import files_of, laid_out, prepared
from .strategies import NASTY, TEXTS, VALUES, damaged, examples, told, with_changes

RAW_TEXTS = TEXTS.map(lambda text: text.encode("utf-8", errors="surrogatepass"))
OPENPOSE = "bye/1/v_2_keypoints.json"
FRAME = json.loads(files_of("openpose")[OPENPOSE])
COLUMNS = st.lists(st.sampled_from(["path", "sign", "label", "signer", "split", "", "x"]), min_size=1, max_size=5)
CELLS = TEXTS | st.sampled_from(["0.pose", "1.pose", "../0.pose", "/etc/passwd", "a", "train", 'x"', "'"])


@examples(80)
@given(COLUMNS, st.lists(st.lists(CELLS, max_size=5), max_size=4), st.sampled_from(["", '"']))
def test_any_index_of_poses(columns: list[str], rows: list[list[str]], quote: str) -> None:
    lines = [",".join(columns), *(",".join(quote + cell + quote for cell in row) for row in rows)]
    with laid_out({**files_of("poses"), "index.csv": "\n".join(lines).encode("utf-8", errors="surrogatepass")}) as path:
        told(lambda: prepared(path))


INDEXES = {
    "a stray quotation mark": (b'path,sign\n0.pose,"a\n1.pose,b\n', "unexpected end of data"),
    "two of them": (b'path,sign\n0.pose,"a\n1.pose,b"\n', r"found 'a\\n1\.pose,b', expected values of one line"),
    "a path out of the folder": (b"path,sign\n../0.pose,a\n", r"found the path '\.\./0\.pose' in the index"),
    "an absolute path": (b"path,sign\n/dev/zero,a\n", "found the path '/dev/zero' in the index"),
    "a column twice": (b"path,sign,sign\n0.pose,a,b\n", r"found the columns \['sign'\] more than once"),
    "no sign": (b"path,sign\n0.pose,a\n1.pose,\n", r"index\.csv: line 3: found no sign"),
    "no rows": (b"path,sign\n", "found no rows"),
    "nothing": (b"", "found no rows"),
}


@pytest.mark.parametrize(("raw", "expected"), INDEXES.values(), ids=INDEXES.keys())
def test_wrong_index_of_poses(raw: bytes, expected: str) -> None:
    with laid_out({**files_of("poses"), "index.csv": raw}) as path, pytest.raises(DataError, match=expected):
        prepared(path)


@examples(150)
@given(with_changes(FRAME) | with_changes(FRAME["people"][0]).map(lambda person: {"people": [person]}) | VALUES)
def test_any_frame_of_openpose(frame: Any) -> None:
    raw = json.dumps(frame, default=str).encode("utf-8", errors="surrogatepass")
    with laid_out({**files_of("openpose"), OPENPOSE: raw}) as path:
        told(lambda: prepared(path))


@examples(80)
@given(damaged(b'{"EN_WORDS": ["one", 2, "three"], "AR_WORDS": ["a", "b", "c"]}') | damaged(b"one\ntwo\n") | RAW_TEXTS)
def test_any_labels(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "labels"
    path.write_bytes(raw)
    labels = told(lambda: load_labels(path))
    assert labels is None or all(labels)
    with laid_out(files_of("packed")) as data:
        store = told(lambda: prepared(data, path))
    assert store is None or (labels is not None and store.sign_names == labels[:2])


LAYOUT = (
    b"features: [x, y]\nparts: {pose: 0-2, hand: [3, 4]}\nmirror: [[1, 2]]\nscale: [1, 2]\nbones: [[3-4, [2, 3]]]\n"
)


@examples(150)
@given(damaged(LAYOUT) | RAW_TEXTS)
def test_any_layout(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "layout.yaml"
    path.write_bytes(raw)
    layout = told(lambda: load_layout(path))
    if layout is not None:
        assert all(layout.parts.values())
        assert KeypointLayout.from_dict(layout.to_dict()) == layout


TOO_MUCH = {
    "brackets": b'{"EN_WORDS": ' + b"[" * 10**5,
    "digits": b'{"EN_WORDS": [' + b"9" * 5000 + b"]}",
    "20 MB": b"x\n" * 10**7,
    "a key twice": b'{"EN_WORDS": ["a", "b"], "EN_WORDS": ["b", "a"]}',
    "a lone surrogate": b'{"EN_WORDS": ["a", "\\ud800"]}',
}


@pytest.mark.parametrize("raw", TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_labels_that_are_too_much(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "labels").write_bytes(raw)
    assert told(lambda: load_labels(tmp_path / "labels")) is None


@pytest.mark.parametrize("name", [name for name in NASTY if "\x00" not in name and "\ud800" not in name])
def test_data_under_a_nasty_name(tmp_path: Path, name: str) -> None:
    told(lambda: prepared(tmp_path / name))
    if "/" not in name and len(name) < 200:
        (tmp_path / f"{name}.npz").write_bytes(files_of("packed")["clips.npz"])
        assert prepared(tmp_path / f"{name}.npz").fingerprint
    (tmp_path / ("n" * 250)).write_bytes(files_of("packed")["clips.npz"])
    assert prepared(tmp_path / ("n" * 250)).fingerprint


def test_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    for folder in (b"01-train", b"\xff-train"):
        path = os.path.join(os.fsencode(tmp_path), folder)
        os.mkdir(path)
        with open(os.path.join(path, b"0001.npz"), "wb") as file:
            file.write(files_of("karsl")["01-train/0001.npz"])
    assert told(lambda: prepared(tmp_path)) is None


@pytest.mark.timeout(30)
def test_a_layout_of_a_page_names_no_millions_of_keypoints(tmp_path: Path) -> None:
    """14,000 ranges of 100,000 keypoints took all memory, in 128 KiB."""
    path = tmp_path / "layout.yaml"
    path.write_text(f"features: [x, y]\nparts: {{all: [{', '.join(['0-99999'] * 2000)}]}}\n")
    assert told(lambda: load_layout(path)) is None


@pytest.mark.timeout(30)
def test_a_chain_of_all_keypoints_is_no_hang(tmp_path: Path) -> None:
    """To follow each of 100,000 to its root, a step at a time, takes ten thousand million."""
    path = tmp_path / "layout.yaml"
    path.write_text("features: [x, y]\nparts: {all: 0-99999}\nbones: [[1-99999, 0-99998]]\n")
    assert load_layout(path).num_keypoints == 100_000
    path.write_text("features: [x, y]\nparts: {all: 0-99999}\nbones: [[0-99998, 1-99999], [99999, 0]]\n")
    with pytest.raises(SettingsError, match="hang on one another in a circle"):
        load_layout(path)
