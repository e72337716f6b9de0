"""Folders of clips, a file each: by an index, or by the names of folders."""

import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.clips import by_number
from ds_trainer.tasks.sign.prepare import resolve_store
from ds_trainer.tasks.sign.readers import clip_table, find_reader, sign_folders
from ds_trainer.tasks.sign.readers.parquet_file import read_parquet
from ds_trainer.tasks.sign.splits import SplitRule, make_splits
from ds_trainer.tasks.sign.store import ClipStore

from .test_readers import facts, read
from .writers import KARSL_SHAPE, frames, packed_arrays, write_index, write_parquet


def write_clips(folder: Path, lengths: Mapping[str, int]) -> None:
    """A file for each path, of so many frames."""
    for number, (name, length) in enumerate(lengths.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.savez(folder / name, frames(length, seed=number))


def test_index_lists_files_of_any_kind(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=frames(2), b=frames(3))
    np.savez(tmp_path / "packed.npz", **packed_arrays())
    with (tmp_path / "One.NPY").open("wb") as file:
        np.save(file, frames(5))
    write_parquet(tmp_path / "contest.parquet", frames(6))
    rows = [("two.npz", "hello"), ("One.NPY", "bye"), ("packed.npz", "bye"), ("contest.parquet", "hello")]
    write_index(tmp_path / "train.csv", [{"path": path, "sign": sign, "participant_id": "7"} for path, sign in rows])
    (tmp_path / "._train.csv").write_bytes(b"\x00\x05\x16\x07")  # as macOS adds to archives
    source, clips = read(tmp_path)
    assert list(source.sign_names) == ["hello", "bye"]
    assert facts(clips) == [
        *((1, "7", "", length) for length in (2, 3)),
        *((2, "7", "", length) for length in (5, 2, 3, 4)),
        (1, "7", "", 6),
    ]
    assert [clip.clip_id for clip in clips[:4]] == ["two.npz/a", "two.npz/b", "One.NPY", "packed.npz/a"]
    np.testing.assert_array_equal(clips[2].frames, frames(5))
    np.testing.assert_array_equal(clips[6].frames, frames(6))


def test_index_as_others_write_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pandas puts a column without a name first; names of columns begin with capitals or blanks."""
    monkeypatch.setattr(logging.getLogger("ds_trainer"), "propagate", True)
    write_clips(tmp_path, dict.fromkeys(["1.npz", "2.npz"], 2))
    index = tmp_path / "index.csv"
    index.write_text(",Path, Sign,Person,Split\n0,1.npz,hello,ann,Train\n1,2.npz,bye,bob,TEST\n")
    _, clips = read(tmp_path)
    assert facts(clips) == [(1, "ann", "train", 2), (2, "bob", "test", 2)]
    assert caplog.text == ""
    index.write_text("path,sign,who,fold\n1.npz,hello,ann,1\n2.npz,bye,bob,1\n")
    read(tmp_path)
    assert "index.csv: columns who, fold are not used; none says who signs (signer, " in caplog.text
    for line in ("1.npz,hello", "1.npz,hello,ann,1,2"):
        index.write_text(f"path,sign,who,fold\n{line}\n")
        with pytest.raises(DataError, match="line 2: found more or fewer values than columns"):
            read(tmp_path)


def test_index_names_each_file_that_is_missing_or_no_clip(tmp_path: Path) -> None:
    write_clips(tmp_path, {"there.npz": 2})
    (tmp_path / "word.mp4").touch()
    names = ("there.npz", "absent.npz", "word.mp4", "../there.npz")
    write_index(tmp_path / "index.csv", [{"path": name, "sign": "hello"} for name in names])
    problems = [str(clip) for clip in clip_table.read(tmp_path).clips if isinstance(clip, DataError)]
    assert len(problems) == 3
    assert "absent.npz: missing, expected by the index" in problems[0]
    assert "word.mp4: found .mp4, expected one of .npz" in problems[1]
    assert "python launch/extract_keypoints.py" in problems[1]
    assert "expected one within the folder" in problems[2]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["bye/1.npz", "hello/1.npz"], [(1, "", ""), (2, "", "")]),
        (["ann/hello/1.npz", "bob/hello/2.npz", "bob/bye/3.npz"], [(2, "ann", ""), (1, "bob", ""), (2, "bob", "")]),
        (["train/bye/1.npz", "test/hello/2.npz"], [(2, "", "test"), (1, "", "train")]),
        (["Train/bye/1.npz", "TEST/bye/2.npz"], [(1, "", "test"), (1, "", "train")]),
        (["ann/Train/bye/1.npz", "ann/Val/bye/2.npz"], [(1, "ann", "train"), (1, "ann", "val")]),
        (["ann/val/hello/1.npz", "bob/train/hello/2.npz"], [(1, "ann", "val"), (1, "bob", "train")]),
        (["train/ann/go/1.npz", "val/ann/test/1.npz"], [(1, "ann", "train"), (2, "ann", "val")]),
        (["9/a.npz", "10/a.npz", "sign 1/a.npz"], [(2, "", ""), (1, "", ""), (3, "", "")]),
        (["01/test/0071/1.npz", "02/train/0071/1.npz"], [(71, "01", "test"), (71, "02", "train")]),  # as KArSL has it
        (["0071/1.npz", "0503/1.npz"], [(1, "", ""), (2, "", "")]),
        (["0000/1.npz", "0001/1.npz"], [(1, "", ""), (2, "", "")]),
        (["all/bye/1.npz", "all/hello/1.npz", "all/.old/x.npz", "__MACOSX/y/1.npz"], [(1, "all", ""), (2, "all", "")]),
    ],
)
def test_folders_say_sign_signer_and_split(
    tmp_path: Path, names: Sequence[str], expected: Sequence[tuple[int, str, str]]
) -> None:
    write_clips(tmp_path, dict.fromkeys(names, 2))
    _, clips = read(tmp_path)
    assert [(clip.sign, clip.signer, clip.split) for clip in clips] == expected


def test_a_table_of_something_else_is_no_index(tmp_path: Path) -> None:
    write_clips(tmp_path, dict.fromkeys(["bye/1.npz", "hello/1.npz"], 2))
    write_index(tmp_path / "signers.csv", [{"name": "ann", "age": "30"}])
    assert find_reader(tmp_path) is sign_folders


def test_groups_of_signs_are_no_signers(tmp_path: Path) -> None:
    """As in a data set that sorts its signs by topic: no sign is in two folders, so nobody can be left out."""
    write_clips(tmp_path, dict.fromkeys(["animals/cat/1.npz", "animals/dog/1.npz", "colours/red/1.npz"], 2))
    _, clips = read(tmp_path)
    assert {clip.signer for clip in clips} == {""}


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (
            ["1.npz", "hello/2.npz"],
            "found 1.npz right in it, expected a folder for each sign, or index.csv with the columns path, sign and "
            "signer; move it into the folder of its sign",
        ),
        (["a/ann/hello/1.npz"], "found 'a/ann/hello', expected {sign}, {signer}/{sign}"),
        (["hello/1.npz", "ann/hello/1.npz"], "found 'hello' and 'ann/hello', a signer in one of them"),
        (["hello/train/1.npz", "hello/test/1.npz"], "found 'test' as the folder of clips, expected {split}/{sign}"),
        (["hello/Train/1.npz", "hello/Test/1.npz"], "found 'Test' as the folder of clips, expected {split}/{sign}"),
        (["training/hello/1.npz", "validation/hello/2.npz"], "found the folder 'training', expected train; rename it"),
        (["01-training/0001.npz"], "found the folder '01-training', expected {signer}-train, -val or -test"),
    ],
)
def test_folders_that_may_mean_something_else_are_refused(tmp_path: Path, names: Sequence[str], problem: str) -> None:
    write_clips(tmp_path, dict.fromkeys(names, 2))
    assert find_reader(tmp_path) is sign_folders
    with pytest.raises(DataError) as caught:
        sign_folders.read(tmp_path)
    assert problem in str(caught.value)


def test_frames_in_files_of_their_own_are_told(tmp_path: Path) -> None:
    """And no depth of folders, which is right for a folder a clip."""
    folder = tmp_path / "ann" / "train" / "hello" / "take"
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames(3, KARSL_SHAPE)):
        np.save(folder / f"{number:04}.npy", frame)
    with pytest.raises(DataError, match=r"one frame in each file, such as '.*0000\.npy' \(184, 4\), .*numpy\.stack"):
        read(tmp_path)
    np.save(folder / "0000.npy", frames(2))
    with pytest.raises(DataError, match=r"expected \{sign\}, \{signer\}/\{sign\}"):
        read(tmp_path)


def test_a_folder_one_level_too_deep_is_answered_by_the_one_above(tmp_path: Path) -> None:
    """What the message says to give is read."""
    above, karsl, packed = tmp_path / "signer 1", tmp_path / "karsl", tmp_path / "packed"
    for folder in (above / "0001", karsl / "01-train", packed):
        folder.mkdir(parents=True)
    np.save(above / "0001" / "0.npy", frames(2))
    np.savez(karsl / "01-train" / "0001.npz", video=frames(2))
    np.savez(packed / "clips.npz", **packed_arrays())
    for given, remedy, data in [
        (above / "0001", "where 0001 is a sign, give the folder above it", above),
        (karsl / "01-train", "01-train is a folder of KArSL: give the one above it", karsl),
        (packed, "packed clips are given by", packed / "clips.npz"),
    ]:
        with pytest.raises(DataError) as caught:
            sign_folders.read(given)
        assert str(caught.value).partition("signer; ")[2].split(" --data ")[0].rstrip(",") == remedy
        assert shlex.split(str(caught.value))[-1] == str(data)
        assert read(data)[1]


def test_the_working_directory_as_data_has_a_folder_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hello").mkdir()
    np.save(tmp_path / "hello" / "0.npy", frames(2))
    monkeypatch.chdir(tmp_path / "hello")
    with pytest.raises(DataError, match=f"where hello is a sign, give the folder above it, --data {tmp_path}$"):
        sign_folders.read(Path("."))


def test_clips_in_folders_train_with_a_signer_left_out(tmp_path: Path) -> None:
    names = [f"{signer}/{sign}/{n}.npz" for signer in ("ann", "bob", "eve") for sign in ("bye", "hello") for n in "123"]
    write_clips(tmp_path / "clips", dict.fromkeys(names, 3))
    store = ClipStore.open(resolve_store(tmp_path / "clips", None, tmp_path / "stores", None))
    splits = make_splits(store, SplitRule())
    assert list(store.sign_names) == ["bye", "hello"]
    assert {store.signer_names[signer] for signer in store.signer[splits.test]} == {"eve"}
    assert len(splits.train) + len(splits.val) == 12
    np.save(tmp_path / "clips" / "ann" / "hello" / "4.npy", frames(4, seed=99))
    again = ClipStore.open(resolve_store(tmp_path / "clips", None, tmp_path / "stores", None))
    assert len(again.sign) == len(store.sign) + 1, "a file more, and a store of its own"


def test_footage_is_told_how_it_becomes_keypoints(tmp_path: Path) -> None:
    (tmp_path / "ann" / "hello").mkdir(parents=True)
    (tmp_path / "ann" / "hello" / "1.mp4").touch()
    with pytest.raises(DataError, match=r"found footage and no keypoints; python launch/extract_keypoints\.py"):
        find_reader(tmp_path)


def test_parquet_of_the_contest(tmp_path: Path) -> None:
    recorded = frames(4, (5, 3))
    recorded[1, 2] = np.nan
    write_parquet(tmp_path / "a.parquet", recorded)
    found = read_parquet(tmp_path / "a.parquet")
    assert found.dtype == np.float32
    assert (found[1, 2] == 0).all(), "not found by MediaPipe"
    recorded[1, 2] = 0
    np.testing.assert_array_equal(found, recorded)
    recorded[3, 0, 1] = np.nan
    write_parquet(tmp_path / "a.parquet", recorded)
    assert np.isnan(read_parquet(tmp_path / "a.parquet")[3, 0, 1]), "half a keypoint, to be told as such"


def test_parquet_of_something_else_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    write_parquet(path, frames(4, (5, 3)))
    table = parquet.read_table(path)
    for changed, problem in [
        (table.drop_columns(["z", "type"]), "expected also type, z"),
        (table.slice(0, 18), "found frames of different keypoints"),
        (table.set_column(3, "landmark_index", pyarrow.array(np.arange(20))), "found frames of different keypoints"),
        (table.slice(0, 0), "cannot be read \\(it has 0 rows\\), expected a whole .parquet file"),
    ]:
        parquet.write_table(changed, path)
        with pytest.raises(DataError, match=problem):
            read_parquet(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install ds-trainer\[parquet\]"):
        read_parquet(path)


def test_numbers_in_names_count() -> None:
    assert sorted(["s10", "s9", "s9b", "10", "a"], key=by_number) == ["10", "a", "s9", "s9b", "s10"]
