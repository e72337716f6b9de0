"""KArSL as it is published, in files and packed: read, and refused where it is damaged or hostile."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.clips import RawClip
from ds_trainer.tasks.sign.readers import find_reader, karsl_packed
from ds_trainer.tasks.sign.readers.plain_pickle import load_plain_object
from ds_trainer.tasks.sign.store_writer import write_store

from .reading import facts, read
from .writers import KARSL_SHAPE, frames, write_karsl, write_karsl_packed


def test_karsl_folder(tmp_path: Path) -> None:
    write_karsl(tmp_path, {("01", "train", 1): [2, 3], ("01", "test", 1): [4], ("al-2", "train", 502): [5]})
    source, clips = read(tmp_path)
    assert facts(clips[:3]) == [(1, "01", "test", 4), (1, "01", "train", 2), (1, "01", "train", 3)]
    assert facts(clips[3:]) == [(502, "al-2", "train", 5)]
    np.testing.assert_array_equal(clips[1].frames, frames(2, KARSL_SHAPE, 1))
    assert (source.num_signs, source.claims_unseen_signers) == (502, False)


def test_sign_that_karsl_has_not_is_refused(tmp_path: Path) -> None:
    write_karsl(tmp_path / "karsl", {("01", "train", 502): [2], ("01", "test", 503): [2]})
    with pytest.raises(DataError, match=r"0503\.npz: .*found sign 503, expected 1\.\.502"):
        write_store(tmp_path / "store", find_reader(tmp_path / "karsl").read(tmp_path / "karsl"))


def test_one_damaged_karsl_file_does_not_hide_the_others(tmp_path: Path) -> None:
    write_karsl(tmp_path, {("01", "train", sign): [2] for sign in (1, 2, 3)})
    for sign in (1, 3):
        (tmp_path / "01-train" / f"{sign:04}.npz").write_bytes(b"PK\x03\x04 truncated")
    found = list(find_reader(tmp_path).read(tmp_path).clips)
    assert [type(clip) for clip in found] == [DataError, RawClip, DataError]
    assert "0001.npz: cannot be read" in str(found[0])


def test_karsl_packed(tmp_path: Path) -> None:
    # Whole numbers of numpy and arrays of them occur in the wild beside plain ones.
    everything = write_karsl_packed(tmp_path, "train", {7: {2: [2, np.int64(3)], 1: np.array([4])}, 3: {1: [1]}})  # type: ignore[dict-item]
    write_karsl_packed(tmp_path, "test", {3: {1: [2]}})
    source, clips = read(tmp_path)
    assert facts(clips) == [
        (7, "02", "train", 2),
        (7, "02", "train", 3),
        (7, "01", "train", 4),
        (3, "01", "train", 1),
        (3, "01", "test", 2),
    ]
    np.testing.assert_array_equal(np.concatenate([clip.frames for clip in clips[:4]]), everything)
    assert source.num_signs == 7


class _Hostile:
    """What a pickle can do: run any function with any arguments when it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_hostile_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    file, trace = tmp_path / "train_X_map_samples_lens.npy", tmp_path / "it_ran"
    np.save(file, {1: _Hostile(trace)})  # type: ignore[arg-type]
    assert isinstance(pickle.dumps(_Hostile(trace)), bytes)
    with pytest.raises(DataError, match=r"refused \(found posix\.mkdir\), expected .* was not run"):
        load_plain_object(file)
    assert not trace.exists()
    np.load(file, allow_pickle=True)
    assert trace.exists(), "the pickle would have run, so its refusal means something"


@pytest.mark.parametrize("content", [eval, np.load, np.array(["text"], dtype=object), {1: {2: np.array([0.5])}}])
def test_pickles_of_anything_but_whole_numbers_are_refused(tmp_path: Path, content: Any) -> None:
    file = tmp_path / "lens.npy"
    np.save(file, content)
    with pytest.raises(DataError, match=r"lens\.npy: "):
        load_plain_object(file)


def _shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        ("train_X.mmap", _shorten, "truncated: copy it again"),
        ("train_X_shape.npy", Path.unlink, "missing, expected beside"),
        ("train_X_shape.npy", lambda file: np.save(file, (9, 184, 4)), r"found shape \(9, 184, 4\), expected \(5,"),
        ("train_y.npz", _shorten, "cannot be read"),
        ("train_y.npz", lambda file: np.savez(file, np.array([0, 1])), "expected sign - 1 for each clip"),
        ("train_X_map_samples_lens.npy", _shorten, "lens.npy: "),
        ("train_X_map_samples_lens.npy", lambda file: np.save(file, [[1]]), "lens.npy: "),
        ("train_X_map_samples_lens.npy", lambda file: np.save(file, {1: [5]}), "expected sign -> signer -> list"),
    ],
)
def test_damaged_karsl_packed(tmp_path: Path, name: str, damage: Callable[[Path], None], expected: str) -> None:
    write_karsl_packed(tmp_path, "train", {1: {1: [2, 3]}})
    assert karsl_packed.recognises(tmp_path)
    damage(tmp_path / name)
    with pytest.raises(DataError, match=expected):
        read(tmp_path)
