"""Each format gives the clips that were written in it; damaged and hostile files get one clear line and run nothing."""

import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.readers import find_reader, packed_npz
from ds_trainer.tasks.sign.readers.clip_file import load_clips
from ds_trainer.tasks.sign.readers.npz_file import load_array
from ds_trainer.tasks.sign.store import ClipStore
from ds_trainer.tasks.sign.store_writer import write_store

from .reading import facts, read
from .writers import frames, packed_arrays, write_index, write_karsl_packed

BENCHMARK = Path(__file__).parents[3] / "shared" / "data" / "isl-kinect30" / "clips.npz"


def test_packed_npz(tmp_path: Path) -> None:
    arrays = packed_arrays(split=np.array(["train", "val", "test"]), fps=np.array(30.0), claims_unseen_signers=True)
    np.savez_compressed(tmp_path / "clips.npz", **arrays)
    source, clips = read(tmp_path / "clips.npz")
    assert facts(clips) == [(1, "ann", "train", 2), (2, "ann", "val", 3), (2, "bob", "test", 4)]
    np.testing.assert_array_equal(np.concatenate([clip.frames for clip in clips]), arrays["frames"])
    assert [clip.clip_id for clip in clips] == ["a", "b", "c"]
    assert (list(source.sign_names), source.claims_unseen_signers) == (["hello", "world"], True)


def test_packed_npz_of_the_least(tmp_path: Path) -> None:
    np.savez(tmp_path / "clips.npz", **packed_arrays(label_names=None, signer=None, ids=None))
    source, clips = read(tmp_path / "clips.npz")
    assert facts(clips) == [(1, "", "", 2), (2, "", "", 3), (2, "", "", 4)]
    assert (source.num_signs, list(source.sign_names)) == (2, [])


def test_signs_without_names_are_called_as_y_calls_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "clips.npz", **packed_arrays(label_names=None, y=np.array([0, 3, 3])))
    write_store(tmp_path / "store", packed_npz.read(tmp_path / "clips.npz"))
    store = ClipStore.open(tmp_path / "store")
    assert (store.sign_names, store.sign_numbers) == (["0", "3"], [1, 4])


@pytest.mark.parametrize(
    ("y", "names", "expected"),
    [
        ([-1, 0, 1], None, r"y: found -1 at clip 0 \(1 such\), expected 0\.\.99999; count from 0"),
        ([1, 2, 2], ["a", "b"], r"y: found 2 at clip 1 .*expected 0\.\.1, the place of its name in label_names"),
    ],
)
def test_labels_out_of_range_are_told_as_y_has_them(
    tmp_path: Path, y: list[int], names: list[str] | None, expected: str
) -> None:
    label_names = None if names is None else np.array(names)
    np.savez(tmp_path / "clips.npz", **packed_arrays(y=np.array(y), label_names=label_names))
    with pytest.raises(DataError, match=expected):
        read(tmp_path / "clips.npz")


def test_clips_of_one_name_are_all_read(tmp_path: Path) -> None:
    ids = np.array(["take0", "take0", "take0"])
    np.savez(tmp_path / "clips.npz", **packed_arrays(ids=ids))
    assert list(load_clips(tmp_path / "clips.npz")) == ["take0", "take0#2", "take0#3"]
    ids = np.array(["take0", "take0#2", "take0"])
    np.savez(tmp_path / "clips.npz", **packed_arrays(ids=ids))
    assert list(load_clips(tmp_path / "clips.npz")) == ["take0", "take0#2", "take0#3"]


def test_file_of_clips_may_be_filled_up(tmp_path: Path) -> None:
    filled_up = np.concatenate([frames(6), np.zeros((2, 20, 3), np.float32)]).reshape(2, 4, 20, 3)
    np.savez(tmp_path / "clips.npz", frames=filled_up, y=np.array([0, 1]), signer=np.array(["a", "b"]))
    clips = load_clips(tmp_path / "clips.npz")
    assert {name: len(found) for name, found in clips.items()} == {"0": 4, "1": 2}
    np.testing.assert_array_equal(np.concatenate(list(clips.values())), frames(6))


def test_packed_clips_of_one_length_and_labels_that_are_names(tmp_path: Path) -> None:
    lengths = (5, 3, 5)
    filled_up = np.zeros((3, 5, 20, 3), np.float32)
    for clip, length in zip(filled_up, lengths, strict=True):
        clip[:length] = frames(length, seed=length)
    filled_up[0, 2] = 0  # nothing was found, in the middle
    arrays = {"frames": filled_up, "y": np.array(["sign 10", "sign 9", "sign 10"]), "signer": np.array(["a", "b", "b"])}
    np.savez(tmp_path / "clips.npz", **arrays)
    source, clips = read(tmp_path / "clips.npz")
    assert list(source.sign_names) == ["sign 9", "sign 10"]
    assert facts(clips) == [(2, "a", "", 5), (1, "b", "", 3), (2, "b", "", 5)]
    for clip, expected in zip(clips, filled_up, strict=True):
        np.testing.assert_array_equal(clip.frames, expected[: len(clip.frames)])
    np.savez(tmp_path / "empty.npz", frames=np.zeros((2, 4, 20, 3)), y=np.array([0, 1]))
    assert [len(clip.frames) for clip in read(tmp_path / "empty.npz")[1]] == [1, 1]


def test_arrays_in_fortran_order_are_the_same(tmp_path: Path) -> None:
    """As numpy saves what was indexed by lists or transposed."""
    in_order, turned = frames(9), np.asfortranarray(frames(9))
    assert not turned.flags.c_contiguous
    np.savez_compressed(tmp_path / "clips.npz", **packed_arrays(frames=turned, y=np.array([[0, 1, 1]]).T[:, 0]))
    _, clips = read(tmp_path / "clips.npz")
    np.testing.assert_array_equal(np.concatenate([clip.frames for clip in clips]), in_order)
    (tmp_path / "karsl" / "01-train").mkdir(parents=True)
    np.savez(tmp_path / "karsl" / "01-train" / "0001.npz", video=turned)
    np.save(tmp_path / "single.npy", turned)
    _, (clip,) = read(tmp_path / "karsl")
    for found in (clip.frames, load_array(tmp_path / "single.npy")):
        np.testing.assert_array_equal(found, in_order)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"frames": None}, "expected also frames"),
        ({"y": None, "offsets": None}, "expected also offsets, y"),
        ({"frames": frames(9).reshape(9, 60)}, r"frames: found shape \(9, 60\), expected \[frames"),
        ({"frames": frames(9).astype(object)}, "pickled objects"),
        ({"label_names": np.array(["a", "b"], dtype=object)}, "pickled objects"),
        ({"y": np.array([0.0, 1.0, 1.0])}, "y: found float64"),
        ({"y": np.array(["a", "b", "b"])}, "y: found <U1"),
        (
            {"y": np.array([b"a", b"b", b"b"]), "label_names": None},
            "expected a list of whole numbers, or of names as np",
        ),
        ({"offsets": None}, "expected also offsets"),
        (
            {"frames": frames(3)[:, None], "offsets": None, "y": np.array([0, 1])},
            r"signer: found shape \(3,\), expected",
        ),
        ({"offsets": np.array([0, 5, 2, 9])}, "found 5 before 2 at clip 1"),
        ({"offsets": np.array([0, 2, 5, 8])}, "from 0 to 8"),
        ({"offsets": np.array([0, 2, 9])}, "offsets: found 3, expected 4"),
        ({"signer": np.array(["ann"])}, r"signer: found shape \(1,\), expected \(3,\)"),
    ],
)
def test_wrong_packed_npz(tmp_path: Path, changed: dict[str, Any], expected: str) -> None:
    np.savez(tmp_path / "clips.npz", **packed_arrays(**changed))
    with pytest.raises(DataError, match=rf"clips\.npz: .*{expected}"):
        read(tmp_path / "clips.npz")


def test_truncated_packed_npz(tmp_path: Path) -> None:
    file = tmp_path / "clips.npz"
    np.savez(file, **packed_arrays())
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataError, match=r"cannot be read .* truncated: copy it again"):
        read(file)


def test_frames_that_end_early_are_damage(tmp_path: Path) -> None:
    """The archive is sound, but an array in it is shorter than its header says."""
    file = tmp_path / "clips.npz"
    np.savez(file, **packed_arrays())
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["frames.npy"] = members["frames.npy"][:-40]
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert packed_npz.recognises(file)
    with pytest.raises(DataError, match="cannot be read"):
        read(file)


def test_unknown_folder_names_the_known_formats(tmp_path: Path) -> None:
    formats = r", expected one of: .*KArSL keypoints.*KArSL packed.*packed clips.*index\.csv.*signer.*sign"
    with pytest.raises(DataError, match="the folder is empty" + formats):
        find_reader(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="found only folders" + formats):
        find_reader(tmp_path)
    for name in ("notes.txt", "more.txt", "a/README"):
        (tmp_path / name).write_text("no clips here")
    with pytest.raises(DataError, match=r"found files of \.txt, README" + formats):
        find_reader(tmp_path)
    with pytest.raises(DataError, match=r"found a file of \.txt" + formats):
        find_reader(tmp_path / "notes.txt")


def test_a_file_in_place_of_its_folder_is_told(tmp_path: Path) -> None:
    for folder in ("table", "packed"):
        (tmp_path / folder).mkdir()
    np.save(tmp_path / "table" / "1.npy", frames(2))
    write_index(tmp_path / "table" / "index.csv", [{"path": "1.npy", "sign": "hello"}])
    write_karsl_packed(tmp_path / "packed", "train", {1: {1: [2]}})
    for file in (tmp_path / "table" / "index.csv", tmp_path / "packed" / "train_X.mmap"):
        with pytest.raises(DataError, match=rf"did you mean --data {file.parent}\?$"):
            find_reader(file)


def test_benchmark_set() -> None:
    if not BENCHMARK.is_file():
        pytest.skip("the isl-kinect30 benchmark set is not beside this repository")
    source, clips = read(BENCHMARK)
    assert (len(clips), source.num_signs, source.sign_names[0]) == (2700, 30, "afternoon")
    assert set(Counter((clip.sign, clip.signer) for clip in clips).values()) == {9}
