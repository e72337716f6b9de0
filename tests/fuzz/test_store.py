"""A damaged or made-up clip store: what was written, or told; changed frames are told where all of them are read."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sign_data.writers import grid, source

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.splits import SplitRule, make_splits
from ds_trainer.tasks.sign.store import ClipStore, fingerprint_of
from ds_trainer.tasks.sign.store_writer import write_store

from .formats import npz
from .strategies import TEXTS, VALUES, Bomb, damaged, examples, told, with_changes
from .test_made_up_arrays import ARRAYS, whole_numbers

FILES = ("frames.npy", "index.npz", "store.json")
NAMES = ("offsets", "sign", "signer", "split", "clip_ids", "content")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    path = tmp_path_factory.mktemp("stores") / "store"
    clips = grid(signs=3, signers=3, repetitions=2, split_of={1: "train", 2: "train", 3: "test"})
    write_store(path, source(clips, sign_names=["one", "two", "three"]))
    return ClipStore.open(path)


def open_changed(written: ClipStore, changed: dict[str, bytes], use: Callable[[ClipStore], Any]) -> None:
    """Let `use` have a copy of the store in which some files have other bytes, if it opens."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "store"
        shutil.copytree(written.path, path)
        for name, raw in changed.items():
            (path / name).write_bytes(raw)
        store = told(lambda: ClipStore.open(path))
        if store is not None:
            told(lambda: use(store))


@pytest.mark.parametrize("name", FILES)
@examples(80)
@given(st.data())
def test_damaged_file(written: ClipStore, name: str, data: st.DataObject) -> None:
    def is_what_was_written(store: ClipStore) -> None:
        for array in NAMES:
            np.testing.assert_array_equal(getattr(store, array), getattr(written, array))
        for fact in ("sign_names", "sign_numbers", "signer_names", "layout", "fingerprint", "frames_hash"):
            assert getattr(store, fact) == getattr(written, fact)
        store.check_frames()  # tells changed frames
        np.testing.assert_array_equal(store.frames, written.frames)

    open_changed(written, {name: data.draw(damaged((written.path / name).read_bytes()))}, is_what_was_written)


CHANGES = st.dictionaries(st.sampled_from(NAMES), ARRAYS | whole_numbers(st.integers(-1, 4), 17, 20), max_size=2)


@examples(60)
@given(st.data(), CHANGES)
def test_made_up_store_with_a_hash_that_is_right(
    written: ClipStore, data: st.DataObject, arrays: dict[str, Any]
) -> None:
    """Whoever can write a store can write its hash: what opens must be fit to be used."""
    names = json.loads((written.path / "store.json").read_text())
    if not arrays or data.draw(st.booleans()):
        names = data.draw(with_changes(names))
    index = {name: arrays.get(name, getattr(written, name)) for name in NAMES}
    try:
        names["fingerprint"] = fingerprint_of(names, {name: np.asarray(array) for name, array in index.items()})
        raw = json.dumps(names).encode()
    except (KeyError, AttributeError, ValueError, TypeError):
        return  # no hash can be made of it

    def use(store: ClipStore) -> None:
        splits = make_splits(store, SplitRule())
        for clip in np.concatenate([splits.train, splits.val, splits.test]):
            assert len(store.clip_frames(clip))
            assert isinstance(store.sign_names[store.sign[clip]], str)

    open_changed(written, {"store.json": raw, "index.npz": npz(index)}, use)


SIGNERS = st.sampled_from(["s01", "s02", "s03"]) | TEXTS
RULES = st.builds(
    SplitRule,
    split=st.sampled_from(["auto", "own", "random"]) | st.lists(SIGNERS).map(lambda names: f"signer:{','.join(names)}"),
    val_by=st.sampled_from(["clip", "signer"]),
    val_fraction=st.floats(0, 1, exclude_min=True, exclude_max=True),
    signers=st.none() | st.lists(SIGNERS, max_size=4),
    signs_from=st.none() | st.integers(1, 4) | st.integers(1, 2**63 - 1),
    signs_to=st.none() | st.integers(1, 4) | st.integers(1, 2**63 - 1),
    seed=st.integers(0, 2**63 - 1),
)


@examples(100)
@given(rule=RULES)
def test_any_split_rule(written: ClipStore, rule: SplitRule) -> None:
    splits = told(lambda: make_splits(written, rule))
    if splits is not None:
        clips = np.concatenate([splits.train, splits.val, splits.test])
        assert len(np.unique(clips)) == len(clips) <= len(written), "a clip in two splits"
        assert set(written.sign[clips]) <= set(splits.sign_of_class)
        assert rule.signers is None or {written.signer_names[code] for code in written.signer[clips]} <= set(
            rule.signers
        )


@examples(60)
@given(content=VALUES)
def test_any_json(written: ClipStore, content: Any) -> None:
    open_changed(written, {"store.json": json.dumps(content).encode()}, lambda store: pytest.fail("opened"))


def test_no_pickle_in_a_store_is_run(written: ClipStore, tmp_path: Path) -> None:
    bombs = np.array([Bomb(tmp_path / "trace")], dtype=object)
    arrays = {name: getattr(written, name) for name in NAMES}
    for changed in ({"index.npz": npz({**arrays, "signer": bombs})}, {"frames.npy": npz({"a": bombs})}):
        open_changed(written, changed, lambda store: pytest.fail("opened"))
    path = tmp_path / "frames.npy"
    np.save(path, bombs)
    open_changed(written, {"frames.npy": path.read_bytes()}, lambda store: pytest.fail("opened"))
    assert not (tmp_path / "trace").exists()


def test_changed_bit_in_the_frames_is_told_where_they_are_read(written: ClipStore) -> None:
    raw = bytearray((written.path / "frames.npy").read_bytes())
    raw[-3] ^= 1

    def check(store: ClipStore) -> None:
        with pytest.raises(DataError, match=r"frames\.npy: found other frames than were written"):
            store.check_frames()

    open_changed(written, {"frames.npy": bytes(raw)}, check)


@pytest.mark.parametrize("name", FILES)
def test_pipe_in_place_of_a_file_is_no_hang(written: ClipStore, tmp_path: Path, name: str) -> None:
    shutil.copytree(written.path, tmp_path / "store")
    (tmp_path / "store" / name).unlink()
    os.mkfifo(tmp_path / "store" / name)
    assert told(lambda: ClipStore.open(tmp_path / "store")) is None


def test_names_of_clips_that_are_no_text_are_told_where_the_store_is_opened(written: ClipStore) -> None:
    """Asked for at the end of a training, one such name ended it with a SystemError."""
    arrays = {name: getattr(written, name) for name in NAMES}
    ids = np.full(written.clip_ids.nbytes // 4, 0x7FFFFFFF, np.uint32).view(written.clip_ids.dtype)
    names = json.loads((written.path / "store.json").read_text())
    names["fingerprint"] = fingerprint_of(names, {**arrays, "clip_ids": ids})
    changed = {"index.npz": npz({**arrays, "clip_ids": ids}), "store.json": json.dumps(names).encode()}
    open_changed(written, changed, lambda store: pytest.fail("opened"))
