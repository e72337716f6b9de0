"""What a split says: of what was found and left out, and of what is impossible."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.splits import SplitRule, make_splits
from ds_trainer.tasks.sign.store import ClipStore
from ds_trainer.tasks.sign.store_writer import write_store

from .writers import BuildStore, grid, signers, source


def test_signers_of_the_test_alone_are_told_how_to_be_scored(build_store: BuildStore) -> None:
    store = build_store()
    with pytest.raises(DataError) as caught:
        make_splits(store, SplitRule(split="signer:s01", signers=("s01",)))
    [problem] = caught.value.problems
    assert problem.startswith("--split signer:s01: found no clip in the train split, all ")
    assert problem.endswith("to score them all with launch/evaluate.py, --split all")
    assert len(make_splits(store, SplitRule(split="all", signers=("s01",))).test) > 0


def test_data_that_does_not_say_who_signs_is_told_so(tmp_path: Path) -> None:
    clips = [replace(clip, signer="") for clip in grid(signs=2, signers=1, repetitions=8)]
    write_store(tmp_path / "store", source(clips))
    (told,) = make_splits(ClipStore.open(tmp_path / "store"), SplitRule()).notices
    assert told.startswith("the data does not say who signs: ")
    assert "--split signer:" not in told


def test_signs_that_are_not_tested_are_told(build_store: BuildStore) -> None:
    store = build_store()
    split = np.where((store.sign == 2) | (store.signer != 0), 1, 3).astype(np.int8)
    assert "3: no test clips, so not measured" in make_splits(replace(store, split=split), SplitRule()).notices


def test_selected_signs_are_named_where_their_numbers_do_not(build_store: BuildStore) -> None:
    store = replace(build_store(), sign_names=["8", "9", "10", "11"])
    rule = SplitRule(signs_from=3, signs_to=4)
    assert "signs 3..4 are selected: 10, 11" in make_splits(store, rule).notices
    assert not any("selected" in notice for notice in make_splits(store, SplitRule()).notices)


@pytest.mark.parametrize(
    ("names", "alike"),
    [
        (["Book", "book", "10", "BOOK"], "Book and book and BOOK"),
        (["0071", "71", "710", "sign 100"], "0071 and 71"),
        (["a01b2", "100", "A1b2", "10"], "a01b2 and A1b2"),
    ],
)
def test_names_of_which_one_may_be_a_slip_are_told(build_store: BuildStore, names: list[str], alike: str) -> None:
    store = replace(build_store(), sign_names=names)
    told = f"{alike}: names that differ only by capitals or leading zeros, taken for different ones"
    assert make_splits(store, SplitRule()).notices[0] == told


def test_one_clip_a_sign_is_told_to_be_too_few(build_store: BuildStore) -> None:
    with pytest.raises(
        DataError, match=r"no clip in the val split.*no sign has two clips that are not tested: give more"
    ):
        make_splits(build_store(signers=2, repetitions=1), SplitRule())


def test_signers_who_are_known_are_said_to_be(build_store: BuildStore) -> None:
    store = build_store(signers=2, repetitions=8)
    store = replace(store, split=np.where(np.arange(len(store)) % 2, 1, 3).astype(np.int8))
    splits = make_splits(store, SplitRule())
    assert splits.notices == ["s01, s02: in training and in test, so results hold for signers who are known"]
    assert signers(store, splits.val) == {"s01", "s02"}, "known signers are validated by clip"


def test_shared_signer_breaks_the_claim_of_unseen_ones(build_store: BuildStore) -> None:
    store = build_store(split_of={1: "train", 2: "train", 3: "test", 4: "test", 5: "test"}, claims=True)
    split = store.split.copy()
    split[np.flatnonzero(store.signer == 3)[0]] = 1
    with pytest.raises(DataError, match="found s04 in training and in test, expected unseen signers"):
        make_splits(replace(store, split=split), SplitRule())


def test_range_beyond_the_data_trains_on_what_exists_and_says_so(build_store: BuildStore) -> None:
    splits = make_splits(build_store(), SplitRule(signs_to=502))
    assert splits.sign_numbers == [1, 2, 3, 4]
    assert "signs 1..502 are selected, of which 4 exist here (numbers 1..4)" in splits.notices[0]
    assert len(make_splits(build_store(), SplitRule(signs_to=4)).notices) == 1


def test_sign_without_training_clips_is_said(build_store: BuildStore) -> None:
    store = build_store()
    split = np.where((store.sign == 2) | (store.signer == 0), 3, 1).astype(np.int8)
    assert "3: no training clips, so never recognised" in make_splits(replace(store, split=split), SplitRule()).notices


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"split": "signer:s2"}, "--split: found signer 's2', expected one of the data's; did you mean"),
        ({"signers": ["s01", "nobody"]}, "--signers: found signer 'nobody'"),
        ({"split": "own"}, "the data brings no split"),
        ({"split": "sorted"}, "found 'sorted', expected auto, own, random, all"),
        ({"signs_from": 9, "signs_to": 12}, r"found no sign with clips in this range, expected one within 1\.\.4"),
        ({"split": "signer:s01,s02,s03,s04,s05"}, "no clip in the train split"),
        ({"split": "signer:s01", "signers": ["s02", "s03"]}, "no clip in the test split"),
        ({"split": "signer:s01", "signers": ["s01", "s02"], "val_by": "signer"}, "no clip in the val split.*--val_by"),
    ],
)
def test_what_is_impossible_is_said(build_store: BuildStore, rule: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        make_splits(build_store(), SplitRule(**rule))


def test_all_problems_are_said_at_once(build_store: BuildStore) -> None:
    with pytest.raises(DataError) as caught:
        make_splits(build_store(), SplitRule(split="signer:x", signers=["y"], signs_from=10))
    assert len(caught.value.problems) == 3
