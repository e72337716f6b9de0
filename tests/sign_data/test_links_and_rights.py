"""Folders of data that are links, or may not be looked into: no clip below them is left out in silence."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.clips import is_aside
from ds_trainer.tasks.sign.extraction.work import pieces_of
from ds_trainer.tasks.sign.prepare import resolve_store
from ds_trainer.tasks.sign.readers import find_reader
from ds_trainer.tasks.sign.readers.clip_file import SUFFIXES, files_below
from ds_trainer.tasks.sign.store import ClipStore
from ds_trainer.tasks.sign.unlabelled import clips_in

from .writers import frames, write_index, write_karsl

Write = Callable[[Path, str], None]


def by_signs(folder: Path, signer: str) -> None:
    for number, sign in enumerate(("bye", "hello")):
        (folder / signer / sign).mkdir(parents=True)
        np.save(folder / signer / sign / "0.npy", frames(3, seed=number + 10 * len(signer)))


def by_karsl(folder: Path, signer: str) -> None:
    write_karsl(folder, {(signer.removesuffix("-train"), "train", sign): [3] for sign in (1, 2)})


def of_footage(folder: Path, signer: str) -> None:
    for sign in ("0001", "0002"):
        (folder / signer / "train" / sign).mkdir(parents=True)
        (folder / signer / "train" / sign / "a.mp4").touch()


CLIPS = [(by_signs, ["ann", "bob"]), (by_karsl, ["01-train", "02-train"])]


@pytest.fixture
def stores_dir(tmp_path: Path) -> Path:
    return tmp_path / "stores"


@pytest.mark.parametrize(("write", "signers"), CLIPS)
@pytest.mark.parametrize("num_links", [1, 2])
def test_links_are_followed(
    tmp_path: Path, stores_dir: Path, write: Write, signers: Sequence[str], num_links: int
) -> None:
    """As a folder of data is put together from several disks."""
    for number, signer in enumerate(signers):
        write(tmp_path / ("elsewhere" if number < num_links else "data"), signer)
    (tmp_path / "data").mkdir(exist_ok=True)
    for signer in signers[:num_links]:
        (tmp_path / "data" / signer).symlink_to(tmp_path / "elsewhere" / signer)
    store = ClipStore.open(resolve_store(tmp_path / "data", None, stores_dir, None))
    assert (len(store), len(store.signer_names)) == (4, 2)
    found = dict(clips_in(tmp_path / "data"))
    assert len(found) == 4
    assert not any(isinstance(clip, DataError) for clip in found.values())


def test_links_in_a_ring_are_gone_round_once(tmp_path: Path) -> None:
    by_signs(tmp_path / "data", "ann")
    (tmp_path / "data" / "all").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "ann" / "bye" / "up").symlink_to("..")
    assert [file.parent.name for file in files_below(tmp_path / "data")] == ["bye", "hello"]


def test_what_changes_behind_a_link_is_prepared_anew(tmp_path: Path, stores_dir: Path) -> None:
    by_signs(tmp_path / "elsewhere", "ann")
    by_signs(tmp_path / "data", "bob")
    (tmp_path / "data" / "ann").symlink_to(tmp_path / "elsewhere" / "ann")
    rows = [{"path": f"{signer}/bye/0.npy", "sign": "bye"} for signer in ("ann", "bob")]
    write_index(tmp_path / "data" / "index.csv", rows)
    first = resolve_store(tmp_path / "data", None, stores_dir, None)
    np.save(tmp_path / "elsewhere" / "ann" / "bye" / "0.npy", frames(5))
    second = resolve_store(tmp_path / "data", None, stores_dir, None)
    assert second != first
    assert len(ClipStore.open(second).frames) == len(ClipStore.open(first).frames) + 2


@pytest.mark.parametrize("reason", ["Permission denied", "No such file or directory"])
@pytest.mark.parametrize(("write", "signers"), CLIPS)
@pytest.mark.usefixtures("rights_hold")
def test_folder_that_cannot_be_looked_into_is_named(
    tmp_path: Path, stores_dir: Path, write: Write, signers: Sequence[str], reason: str
) -> None:
    """Another user's, or a link to a disk that is not there."""
    first, second = signers
    write(tmp_path / "data", second)
    if reason == "Permission denied":
        write(tmp_path / "data", first)
        (tmp_path / "data" / first).chmod(0)
    else:
        (tmp_path / "data" / first).symlink_to(tmp_path / "absent")
    with pytest.raises(DataError, match=rf"/data/{first}: cannot be looked at \({reason}\), expected ") as caught:
        resolve_store(tmp_path / "data", None, stores_dir, None)
    assert len(caught.value.problems) == 1
    *answered, (_, error) = clips_in(tmp_path / "data")
    assert [isinstance(clip, np.ndarray) for _, clip in answered] == [True, True]
    assert str(error) == str(caught.value)


@pytest.mark.usefixtures("rights_hold")
def test_all_folders_that_cannot_be_looked_into_are_named(tmp_path: Path, stores_dir: Path) -> None:
    for signer in ("ann", "bob", ".cat"):
        by_signs(tmp_path / "data", signer)
        (tmp_path / "data" / signer).chmod(0)
    with pytest.raises(DataError) as caught:
        resolve_store(tmp_path / "data", None, stores_dir, None)
    assert [problem.partition(": ")[0] for problem in caught.value.problems] == [
        str(tmp_path / "data" / signer) for signer in ("ann", "bob")
    ]
    (tmp_path / "data").chmod(0)
    with pytest.raises(DataError, match="/data: cannot be looked at"):
        find_reader(tmp_path / "data")
    with pytest.raises(DataError, match="/data: cannot be looked at"):
        resolve_store(tmp_path / "data", None, stores_dir, None)


@pytest.mark.parametrize("split", ["train", "others"])
@pytest.mark.usefixtures("rights_hold")
def test_footage_that_cannot_be_looked_into_is_named(tmp_path: Path, split: str) -> None:
    for signer in ("01", "02"):
        of_footage(tmp_path / "footage", signer)
        (tmp_path / "footage" / signer / "train").rename(tmp_path / "footage" / signer / split)
    (tmp_path / "footage" / "02").chmod(0)
    with pytest.raises(DataError, match=r"/footage/02.*: cannot be looked at"):
        pieces_of(tmp_path / "footage", tmp_path / "out")
    (tmp_path / "footage" / "02").chmod(0o700)
    assert len(pieces_of(tmp_path / "footage", tmp_path / "out")) == 4


def test_files_of_data_without_links_are_those_of_before(tmp_path: Path) -> None:
    """Their order, names and states are what a prepared store is found by."""
    names = ("b/1.npz", "b.npz", "b-c/1.npz", "a/x/y.NPY", "é/2.pose", ".h/1.npz", "__MACOSX/1.npz", "._b.npz", "n.txt")
    for name in (*names, "9/1.parquet", "10/1.npz", "10/.1.npz", "B/1.npz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    before = sorted(
        file
        for file in tmp_path.rglob("*")
        if file.suffix.lower() in SUFFIXES and not any(map(is_aside, file.relative_to(tmp_path).parts))
    )
    assert [*files_below(tmp_path)] == before
    assert len(before) == 8
