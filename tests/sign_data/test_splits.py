"""Splits: every clip in one of them, people apart where that is promised."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds_trainer.errors import DataError, SettingsError
from ds_trainer.tasks.sign.split_draws import holding_out, named_signers
from ds_trainer.tasks.sign.splits import SplitRule, Splits, make_splits
from ds_trainer.tasks.sign.store import ClipStore
from ds_trainer.tasks.sign.store_writer import write_store

from .writers import BuildStore, grid, signers, source


def all_clips(splits: Splits) -> list[int]:
    for clips in (splits.train, splits.val, splits.test):
        assert clips.dtype == np.int64
        assert (np.diff(clips) > 0).all()
    return sorted(np.concatenate([splits.train, splits.val, splits.test]).tolist())


RULES: dict[str, dict[str, Any]] = {
    "auto": {},
    "random": {"split": "random"},
    "signer": {"split": "signer:s02"},
    "two signers": {"split": "signer:s02, s04"},
    "by signer": {"split": "signer:s02", "val_by": "signer"},
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_clip_is_in_one_split_the_same_for_the_same_seed(build_store: BuildStore, name: str, seed: int) -> None:
    store, rule = build_store(), SplitRule(seed=seed, **RULES[name])
    splits, again = make_splits(store, rule), make_splits(store, rule)
    assert all_clips(splits) == list(range(len(store)))
    for one, other in [(splits.train, again.train), (splits.val, again.val), (splits.test, again.test)]:
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("rule", "val", "test"),
    [
        (SplitRule(seed=0), [0, 14, 31], None),
        (SplitRule(seed=1), [5, 19, 25], None),
        (SplitRule(split="random"), [0, 18, 19, 35], [1, 5, 16, 21, 24, 28, 29]),
        (SplitRule(split="signer:s01", val_fraction=0.4), [4, 5, 6, 16, 18, 21, 29, 34, 35], None),
        (SplitRule(val_by="signer", seed=1), [4, 5, 6, 7, 16, 17, 18, 19, 28, 29, 30, 31], None),
    ],
)
def test_draws_stay_what_they_were(
    build_store: BuildStore, rule: SplitRule, val: list[int], test: list[int] | None
) -> None:
    """What the recipes reach, and a run that is continued, depend on them."""
    splits = make_splits(build_store(signs=3, signers=3, repetitions=4), rule)
    assert splits.val.tolist() == val
    assert test is None or splits.test.tolist() == test


def test_seed_changes_what_is_drawn(build_store: BuildStore) -> None:
    store = build_store()
    drawn = [make_splits(store, SplitRule(split="random", seed=seed)).test.tolist() for seed in range(3)]
    assert drawn[0] != drawn[1] != drawn[2]


def test_auto_leaves_the_last_signer_out_and_validates_on_clips_of_the_others(build_store: BuildStore) -> None:
    store = build_store()
    splits = make_splits(store, SplitRule())
    assert signers(store, splits.test) == {"s05"}
    assert signers(store, splits.train) == {"s01", "s02", "s03", "s04"}
    assert 0 < len(splits.val) < len(splits.train)
    (told,) = splits.notices
    assert told.startswith("unseen signers in test: s05; those in validation train, too")


def test_validation_on_another_signer(build_store: BuildStore) -> None:
    store = build_store()
    splits = make_splits(store, SplitRule(val_by="signer"))
    assert len(signers(store, splits.val)) == 1
    assert signers(store, splits.train) | signers(store, splits.val) == {"s01", "s02", "s03", "s04"}
    assert not signers(store, splits.train) & signers(store, splits.val)
    assert splits.notices == ["unseen signers in test: s05"]


def test_all_are_test_where_nothing_is_to_be_trained(build_store: BuildStore) -> None:
    store = build_store(signers=2)
    splits = make_splits(store, SplitRule(split="all", signers=["s02"], signs_from=2))
    assert (len(splits.train), len(splits.val), splits.notices) == (0, 0, [])
    assert signers(store, splits.test) == {"s02"}
    assert len(splits.test) == 3 * 6
    with pytest.raises(DataError, match="no clip in the test split"):
        make_splits(replace(store, signer=np.zeros_like(store.signer)), SplitRule(split="all", signers=["s02"]))


def test_auto_takes_the_split_of_the_data(build_store: BuildStore) -> None:
    store = build_store(split_of={1: "train", 2: "train", 3: "val", 4: "test", 5: "train"}, claims=True)
    splits = make_splits(store, SplitRule())
    assert (signers(store, splits.val), signers(store, splits.test)) == ({"s03"}, {"s04"})


def test_auto_with_one_signer_is_random_and_says_that_results_flatter(build_store: BuildStore) -> None:
    splits = make_splits(build_store(signers=1), SplitRule())
    assert "results flatter" in splits.notices[0]
    assert len(splits.test) == 4


@given(st.lists(st.text(alphabet="ab ,\"':é", min_size=1).map(str.strip).filter(bool), min_size=1, max_size=3))
def test_any_names_of_signers_can_be_held_out(names: list[str]) -> None:
    assert named_signers(holding_out(names)) == names


def test_plain_names_stand_as_they_are_and_need_no_quotes() -> None:
    assert holding_out(["s01", "Ann Lee"]) == "signer:s01,Ann Lee"
    assert named_signers('signer: s01 ,"Lee, Ann",') == ["s01", "Lee, Ann"]


def test_names_in_two_lines_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"--split: found 'signer:a\\nb'.*expected signer:NAME"):
        named_signers("signer:a\nb")


def test_blanks_around_a_name_do_not_count_and_commas_do(tmp_path: Path) -> None:
    called = {"s01": " s01", "s02": "Lee, Ann", "s03": ""}
    clips = [
        replace(clip, signer=called[clip.signer] + " " * (number % 2))
        for number, clip in enumerate(grid(signs=2, signers=3, repetitions=4))
    ]
    write_store(tmp_path / "store", source(clips))
    store = ClipStore.open(tmp_path / "store")
    assert store.signer_names == ["Lee, Ann", "s01", "unknown"]
    splits = make_splits(store, SplitRule(split='signer:"Lee, Ann"'))
    assert (signers(store, splits.test), signers(store, splits.train)) == ({"Lee, Ann"}, {"s01", "unknown"})
    num_unnamed = int((store.signer[splits.train] == 2).sum())
    assert splits.notices[0].endswith(
        f"; {num_unnamed} training clips are of nobody that the data names, who may be the same people"
    )


def test_data_that_says_what_validates_alone_is_taken_at_its_word(build_store: BuildStore) -> None:
    """Its own clips validate, and the test is drawn from the others as where it says nothing."""
    folders = build_store(signers=1, split_of={1: "train"})
    split = np.where(np.arange(len(folders)) % 3, 1, 2).astype(np.int8)
    store = replace(folders, split=split)
    for rule in (SplitRule(), SplitRule(split="own")):
        splits = make_splits(store, rule)
        assert splits.val.tolist() == np.flatnonzero(split == 2).tolist()
        assert len(splits.test) == 3
        assert splits.notices[0] == "the data says what validates but not what tests: as random of its other clips do"
    assert set(make_splits(store, SplitRule(split="random")).val) != set(splits.val)


def test_signer_who_tests_validates_nothing(build_store: BuildStore) -> None:
    store = build_store(split_of={1: "train", 2: "train", 3: "train", 4: "val", 5: "val"})
    store.split[np.flatnonzero(store.signer == 2)[::3]] = 2
    splits = make_splits(store, SplitRule())
    assert (signers(store, splits.test), signers(store, splits.val)) == ({"s03"}, {"s04", "s05"})
    assert signers(store, splits.train) == {"s01", "s02"}
    with pytest.raises(DataError, match="found no clip in the test split"):
        make_splits(build_store(split_of={1: "train"}), SplitRule(split="own"))


def test_signers_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    clips = [replace(clip, signer=str(int(clip.signer[1:]) + 8)) for clip in grid(signs=2, signers=3, repetitions=2)]
    write_store(tmp_path / "store", source(clips))
    store = ClipStore.open(tmp_path / "store")
    assert store.signer_names == ["9", "10", "11"]
    assert signers(store, make_splits(store, SplitRule()).test) == {"11"}
    assert [store.signer_names[signer] for signer in store.signer] == [clip.signer for clip in clips]


@pytest.mark.parametrize("val_fraction", [0.05, 0.15, 0.5, 0.9])
def test_validation_by_clip_is_stratified_and_empties_no_sign(build_store: BuildStore, val_fraction: float) -> None:
    store = build_store()
    splits = make_splits(store, SplitRule(val_fraction=val_fraction))
    num_clips = len(splits.train) + len(splits.val)
    assert len(splits.val) == pytest.approx(val_fraction * num_clips, abs=1)
    in_val = np.bincount(store.sign[splits.val], minlength=4)
    assert np.ptp(in_val) <= 1
    assert np.bincount(store.sign[splits.train], minlength=4).min() >= 1


def test_many_signs_of_few_clips_still_give_their_share(build_store: BuildStore) -> None:
    store = build_store(signs=50, signers=3, repetitions=1)
    splits = make_splits(store, SplitRule(split="signer:s03", val_fraction=0.2))
    assert len(splits.val) == 20
    assert len(np.unique(store.sign[splits.train])) == 50


def test_sign_of_one_clip_trains_and_no_other_gives_more_for_it(tmp_path: Path) -> None:
    """Half of the clips of nine signs, of which the fifth has four clips and the others one."""
    clips = [clip for clip in grid(signs=9, signers=2, repetitions=4) if clip.sign == 5 or clip.clip_id.endswith("_0")]
    write_store(tmp_path / "store", source(clips, num_signs=9))
    store = ClipStore.open(tmp_path / "store")
    splits = make_splits(store, SplitRule(split="signer:s02", val_fraction=0.5))
    assert store.sign[splits.val].tolist() == [4, 4]
    assert np.bincount(store.sign[splits.train]).tolist() == [1, 1, 1, 1, 2, 1, 1, 1, 1]


def test_validation_has_at_least_one_clip(build_store: BuildStore) -> None:
    splits = make_splits(build_store(signs=1, signers=2, repetitions=2), SplitRule(val_fraction=0.01))
    assert (len(splits.train), len(splits.val)) == (1, 1)


@pytest.mark.parametrize(("val_fraction", "expected"), [(0.01, 1), (0.5, 2), (0.99, 3)])
def test_validation_by_signer_leaves_someone_to_train(
    build_store: BuildStore, val_fraction: float, expected: int
) -> None:
    store = build_store()
    splits = make_splits(store, SplitRule(val_by="signer", val_fraction=val_fraction))
    assert len(signers(store, splits.val)) == expected


def test_classes_are_the_selected_signs_only(build_store: BuildStore) -> None:
    store = build_store(signs=6)
    splits = make_splits(store, SplitRule(signs_from=2, signs_to=4, signers=["s01", "s03", "s05"]))
    assert (splits.sign_of_class.tolist(), splits.sign_numbers) == ([1, 2, 3], [2, 3, 4])
    clips = np.array(all_clips(splits))
    assert set(store.sign[clips].tolist()) == {1, 2, 3}
    assert signers(store, clips) == {"s01", "s03", "s05"}
