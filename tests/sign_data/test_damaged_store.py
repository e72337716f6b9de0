"""A clip store that is damaged, or that somebody made up, is told when it is opened."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.store import ClipStore, fingerprint_of
from ds_trainer.tasks.sign.store_writer import write_store

from .writers import grid, source


@pytest.fixture
def store_dir(tmp_path: Path) -> Path:
    """That of four clips: two signs by two signers."""
    write_store(tmp_path / "store", source(grid(signs=2, signers=2, repetitions=1)))
    return tmp_path / "store"


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


@pytest.mark.parametrize("file_name", ["frames.npy", "index.npz", "store.json"])
@pytest.mark.parametrize("damage", [_truncate, Path.unlink])
def test_damaged_store_says_which_file(store_dir: Path, file_name: str, damage: object) -> None:
    assert callable(damage)
    damage(store_dir / file_name)
    with pytest.raises(DataError, match=f"{file_name}: .*prepare the data again"):
        ClipStore.open(store_dir)


@pytest.mark.parametrize("file_name", ["frames.npy", "index.npz", "store.json"])
@pytest.mark.usefixtures("rights_hold")
def test_store_that_may_not_be_read_is_not_to_be_deleted(store_dir: Path, file_name: str) -> None:
    (store_dir / file_name).chmod(0)
    with pytest.raises(DataError, match=f"{file_name}: cannot be read .* ask for the right to read it$"):
        ClipStore.open(store_dir)


def test_store_of_another_version_is_refused(store_dir: Path) -> None:
    names = store_dir / "store.json"
    names.write_text(names.read_text().replace('"store_version": 4', '"store_version": 99'))
    with pytest.raises(DataError, match="found store version 99, expected 4"):
        ClipStore.open(store_dir)


def test_frames_behind_the_last_are_told(store_dir: Path) -> None:
    with open(store_dir / "frames.npy", "ab") as file:
        file.write(b"more")
    with pytest.raises(DataError, match=r"frames\.npy: .*it is not \d+ bytes long, as its header says"):
        ClipStore.open(store_dir)


def _rename_signer(store_dir: Path) -> None:
    names = store_dir / "store.json"
    names.write_text(names.read_text().replace('"s01"', '"s03"'))


def _swap_signers(store_dir: Path) -> None:
    index = dict(np.load(store_dir / "index.npz"))
    np.savez(store_dir / "index.npz", **{**index, "signer": 1 - index["signer"]})  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [_rename_signer, _swap_signers])
def test_change_that_leaves_a_fine_store_is_told(store_dir: Path, change: Callable[[Path], None]) -> None:
    """As a flipped bit may, or an editor: the clips would be those of somebody else."""
    change(store_dir)
    with pytest.raises(DataError, match=r"store\.json: .*have not the hash with which they were written"):
        ClipStore.open(store_dir)


@pytest.mark.parametrize(
    ("name", "array", "told"),
    [
        ("sign", [0, 0, 1, 2], "signs, signers or splits that it does not name"),
        ("signer", [0, 1, 2, 1], "signs, signers or splits that it does not name"),
        ("offsets", [0, 2, 2, 6, 8], "the offsets in index.npz do not rise from 0"),
        ("offsets", [1, 2, 4, 6, 8], "the offsets in index.npz do not rise from 0"),
    ],
)
def test_index_that_leads_nowhere_is_told_though_its_hash_is_right(
    store_dir: Path, name: str, array: list[int], told: str
) -> None:
    index = {**np.load(store_dir / "index.npz"), name: np.array(array)}
    names = json.loads((store_dir / "store.json").read_text())
    (store_dir / "store.json").write_text(json.dumps({**names, "fingerprint": fingerprint_of(names, index)}))
    np.savez(store_dir / "index.npz", **index)
    with pytest.raises(DataError, match=told):
        ClipStore.open(store_dir)
