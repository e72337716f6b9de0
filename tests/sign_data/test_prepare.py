"""From `--data` to a store: prepared once for each state of the source, by one process while the others wait."""

import logging
import os
import stat
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.prepare import resolve_store
from ds_trainer.tasks.sign.store import ClipStore

from .writers import frames, packed_arrays, write_karsl


@pytest.fixture
def data_path(tmp_path: Path) -> Path:
    np.savez(tmp_path / "clips.npz", **packed_arrays())
    return tmp_path / "clips.npz"


@pytest.fixture
def stores_dir(tmp_path: Path) -> Path:
    return tmp_path / "stores"


def test_source_is_prepared_once(data_path: Path, stores_dir: Path) -> None:
    first = resolve_store(data_path, None, stores_dir, None)
    written_ns = (first / "frames.npy").stat().st_mtime_ns
    assert first.parent == stores_dir
    assert first.name.startswith("clips-")
    assert resolve_store(str(data_path), None, stores_dir, None) == first
    assert (first / "frames.npy").stat().st_mtime_ns == written_ns
    assert resolve_store(first, None, stores_dir, None) == first, "a store is used as it is"


def test_changed_source_is_prepared_anew(data_path: Path, stores_dir: Path) -> None:
    first = resolve_store(data_path, None, stores_dir, None)
    np.savez(data_path, **packed_arrays(label_names=np.array(["good", "bye"])))
    os.utime(data_path, ns=(0, 0))
    second = resolve_store(data_path, None, stores_dir, None)
    assert second != first
    assert ClipStore.open(second).sign_names == ["good", "bye"]


def test_other_content_of_the_same_size_and_time_is_prepared_anew(data_path: Path, stores_dir: Path) -> None:
    """As rsync -t and unzip leave it."""
    before = data_path.stat()
    first = resolve_store(data_path, None, stores_dir, None)
    np.savez(data_path, **packed_arrays(label_names=np.array(["hallo", "worms"])))
    os.utime(data_path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert data_path.stat().st_size == before.st_size
    assert resolve_store(data_path, None, stores_dir, None) != first


def test_labels_do_not_rename_what_has_these_names(
    data_path: Path, stores_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("ds_trainer"), "propagate", True)
    labels = tmp_path / "labels.txt"
    for written, problem in [
        ("world\nhello\n", "found 'world' for the sign that .* calls 'hello', and it has a sign 'world'"),
        ("uno\ndue\ntre\n", "found 3 names, expected 2, one for each sign of"),
    ]:
        labels.write_text(written)
        with pytest.raises(DataError, match=problem):
            resolve_store(data_path, labels, stores_dir, None)
    labels.write_text("hello\nworld\n")
    resolve_store(data_path, labels, stores_dir, None)
    assert caplog.text == ""
    labels.write_text("hello\nmonde\n")
    resolve_store(data_path, labels, stores_dir, None)
    assert "renames signs: 'world' is 'monde'" in caplog.text


def test_one_name_in_two_spellings_is_one_sign_and_one_signer(tmp_path: Path, stores_dir: Path) -> None:
    """macOS takes letters and their accents apart; a blank behind a name is not seen."""
    composed, apart = "café", "cafe\u0301"
    for number, place in enumerate(
        (f"zoë/{composed}", f"zoe\u0308/{apart}", f"ann/{apart}", "ann/hello", "ann/hello ")
    ):
        (tmp_path / "clips" / place).mkdir(parents=True)
        np.save(tmp_path / "clips" / place / f"{number}.npy", frames(3, seed=number))
    store = ClipStore.open(resolve_store(tmp_path / "clips", None, stores_dir, None))
    assert (store.sign_names, store.signer_names) == ([composed, "hello"], ["ann", "zoë"])
    assert sorted(store.sign.tolist()) == [0, 0, 0, 1, 1]
    names = np.array([composed, apart, composed])
    np.savez(tmp_path / "names.npz", **packed_arrays(y=names, label_names=None, signer=np.array(["a", "a ", " a"])))
    store = ClipStore.open(resolve_store(tmp_path / "names.npz", None, stores_dir, None))
    assert (store.sign_names, store.signer_names) == ([composed], ["a"])


def test_two_signs_of_one_name_are_refused(data_path: Path, stores_dir: Path, tmp_path: Path) -> None:
    problem = "found the name 'bank' for the signs 1 and 2, expected another for each"
    np.savez(data_path, **packed_arrays(label_names=np.array(["bank", " bank"])))
    with pytest.raises(DataError, match=problem):
        resolve_store(data_path, None, stores_dir, None)
    labels = tmp_path / "labels.txt"
    labels.write_text("bank\nbank\n")
    with pytest.raises(DataError, match=rf"labels\.txt: {problem}"):
        resolve_store(data_path, labels, stores_dir, None)


def test_labels_name_the_signs(data_path: Path, stores_dir: Path, tmp_path: Path) -> None:
    np.savez(data_path, **packed_arrays(label_names=None))
    labels = tmp_path / "labels.txt"
    labels.write_text("uno\ndue\ntre\n")
    store_dir = resolve_store(data_path, labels, stores_dir, None)
    assert ClipStore.open(store_dir).sign_names == ["uno", "due"]
    assert store_dir != resolve_store(data_path, None, stores_dir, None)
    with pytest.raises(DataError, match="prepared store whose names are fixed"):
        resolve_store(store_dir, labels, stores_dir, None)


def test_labels_are_taken_by_the_number_of_a_sign(tmp_path: Path, stores_dir: Path) -> None:
    write_karsl(tmp_path / "karsl", {("01", "train", 3): [2], ("01", "test", 3): [2]})
    labels = tmp_path / "labels.txt"
    labels.write_text("one\ntwo\nthree\n")
    store = ClipStore.open(resolve_store(tmp_path / "karsl", labels, stores_dir, None))
    assert (store.sign_names, store.sign_numbers, store.layout.name) == (["three"], [3], "karsl_184")
    labels.write_text("one\ntwo\n")
    with pytest.raises(DataError, match=r"labels\.txt: found 2 names, expected at least 3"):
        resolve_store(tmp_path / "karsl", labels, stores_dir, None)


def test_progress_sees_every_clip(data_path: Path, stores_dir: Path) -> None:
    seen = []

    def progress(items: Iterable[Any], total: int, label: str, /) -> Iterable[Any]:
        for item in items:
            seen.append((total, label))
            yield item

    resolve_store(data_path, None, stores_dir, None, progress)
    assert seen == [(3, f"preparing {data_path}")] * 3


def test_missing_source_names_its_nearest_sibling(data_path: Path, stores_dir: Path) -> None:
    with pytest.raises(DataError, match=r"--data .*clip\.npz: missing.*did you mean 'clips\.npz'"):
        resolve_store(data_path.with_name("clip.npz"), None, stores_dir, None)


def test_bad_source_leaves_no_store(data_path: Path, stores_dir: Path) -> None:
    bad = packed_arrays()
    bad["frames"][4] = np.nan
    np.savez(data_path, **bad)
    with pytest.raises(DataError, match="clip b: found 60 NaN"):
        resolve_store(data_path, None, stores_dir, None)
    assert [path for path in stores_dir.iterdir() if path.suffix != ".lock"] == []


def test_stores_dir_that_cannot_be_made(data_path: Path) -> None:
    with pytest.raises(DataError, match=r"--stores_dir .*stores: cannot be written .*choose a writable one"):
        resolve_store(data_path, None, data_path / "stores", None)


def test_other_users_of_a_shared_folder_may_lock_there(data_path: Path, stores_dir: Path) -> None:
    before = os.umask(0o022)
    try:
        resolve_store(data_path, None, stores_dir, None)
    finally:
        os.umask(before)
    [lock] = stores_dir.glob(".*.lock")
    assert stat.S_IMODE(lock.stat().st_mode) == 0o666, "who cannot open it cannot wait for who prepares"


@pytest.mark.usefixtures("rights_hold")
def test_store_that_its_owner_keeps_closed_is_told(data_path: Path, stores_dir: Path) -> None:
    store_dir = resolve_store(data_path, None, stores_dir, None)
    store_dir.chmod(0)
    with pytest.raises(DataError, match=r"--stores_dir .*stores: cannot be looked into .*ask for the right to read"):
        resolve_store(data_path, None, stores_dir, None)
    store_dir.chmod(0o700)


def test_names_in_the_source_cannot_lead_out_of_the_store(tmp_path: Path, stores_dir: Path) -> None:
    folder = tmp_path / "da ta..(1)"
    folder.mkdir()
    np.savez(folder / "..%2Fclips .npz", **packed_arrays(ids=np.array(["../../x", "/etc/y", "c"])))
    before = sorted(tmp_path.rglob("*"))
    store_dir = resolve_store(folder / "..%2Fclips .npz", None, stores_dir, None)
    assert store_dir.parent == stores_dir
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and stores_dir not in path.parents] == [
        stores_dir
    ]
    assert ClipStore.open(store_dir).clip_ids.tolist() == ["../../x", "/etc/y", "c"]


def test_left_over_of_a_killed_process_is_removed(data_path: Path, stores_dir: Path) -> None:
    store_dir = resolve_store(data_path, None, stores_dir, None)
    left_over = stores_dir / f".{store_dir.name}.x1.partial"
    store_dir.rename(left_over)
    assert resolve_store(data_path, None, stores_dir, None) == store_dir
    assert not left_over.exists()


def test_several_callers_at_once_prepare_one_store(tmp_path: Path, stores_dir: Path) -> None:
    """Threads stand in for ranks: each opens the lock file itself, as a process would, and none needs to be started."""
    lengths = {(f"{signer:02}", "train", sign): [20] * 5 for signer in (1, 2) for sign in range(1, 9)}
    write_karsl(tmp_path / "karsl", lengths)
    all_called, prepared_by = threading.Barrier(4), []

    def progress(items: Iterable[Any], total: int, label: str, /) -> Iterable[Any]:
        prepared_by.append(threading.get_ident())
        return items

    def rank(_: int) -> Path:
        all_called.wait(timeout=10)
        return resolve_store(tmp_path / "karsl", None, stores_dir, None, progress)

    with ThreadPoolExecutor(4) as ranks:
        [store_dir] = set(ranks.map(rank, range(4)))
    assert len(prepared_by) == 1
    assert len(ClipStore.open(store_dir)) == 80
