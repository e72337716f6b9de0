"""Copies: the same recording under two names is on one side of a split, or refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.content import content_of
from ds_trainer.tasks.sign.split_notices import label_notices
from ds_trainer.tasks.sign.splits import SplitRule, make_splits
from ds_trainer.tasks.sign.store import ClipStore
from ds_trainer.tasks.sign.store_writer import write_store

from .writers import BuildStore, frames, grid, source


def with_copies(tmp_path: Path, *copies: tuple[int, int], blank: tuple[int, ...] = ()) -> ClipStore:
    """Five signers, four signs, one repetition; of each pair the second clip has the frames of the first."""
    clips = list(grid(signs=4, signers=5, repetitions=1))
    for one, other in copies:
        clips[other] = replace(clips[other], frames=clips[one].frames.copy())
    for number in blank:
        clips[number] = replace(clips[number], frames=np.zeros_like(clips[number].frames))
    write_store(tmp_path / "store", source(clips, num_signs=4))
    return ClipStore.open(tmp_path / "store")


def test_copy_on_the_other_side_is_refused_whatever_its_name(tmp_path: Path) -> None:
    clips = list(grid(signs=4, signers=5, repetitions=1))
    first = next(number for number, clip in enumerate(clips) if clip.signer == "s01")
    second = next(number for number, clip in enumerate(clips) if clip.signer == "s02")
    store = with_copies(tmp_path, (first, second))
    rule = SplitRule(split="signer:s01", val_fraction=0.1)
    with pytest.raises(DataError) as refused:
        make_splits(store, rule)
    (problem,) = refused.value.problems
    assert problem.startswith("--split signer:s01: found the same recording in ")
    assert store.clip_ids[first] in problem
    assert store.clip_ids[second] in problem
    assert problem.endswith("remove the copies from the data, which has 1 in all")
    for own, sides in (((1, 2, 3), "training and in validation"), ((2, 3, 1), "validation and in test")):
        split = np.full(len(store), own[2], dtype=np.int8)
        split[[first, second]] = own[:2]
        by_data = replace(store, split=split)
        with pytest.raises(DataError, match=f"--split own: found the same recording in {sides}"):
            make_splits(by_data, SplitRule(split="own"))
    both_in_test = replace(rule, split="signer:s01,s02")
    assert len(make_splits(store, both_in_test).test) == 8


@pytest.mark.parametrize("rule", [SplitRule(split="signer:s05", val_fraction=0.4), SplitRule(split="random")])
def test_copies_are_drawn_together_and_told(build_store: BuildStore, rule: SplitRule) -> None:
    """Clips of two signs and of two signers among them, and three of one recording; a whole sign of one recording."""
    content = np.arange(1, 121, dtype=np.uint64)
    for one, copies in {0: [1, 2], 6: [12], 40: [75], 84: [85], 50: [3, 4]}.items():
        content[copies] = content[one]
    content[90:] = content[90]
    store = replace(build_store(), content=content)
    store.signer[90:] = 0
    drawn = [0, 0]
    for seed in range(30):
        splits = make_splits(store, replace(rule, seed=seed))
        sides = [set(content[clips].tolist()) for clips in (splits.train, splits.val, splits.test)]
        assert sum(map(len, sides)) == len(np.unique(content)), "each recording is on one side"
        assert len(splits.train) + len(splits.val) + len(splits.test) == 120
        assert set(store.sign[splits.train]) == {0, 1, 2, 3}, "no sign is emptied"
        drawn[0] += len(splits.val)
        drawn[1] += int((splits.train < 90).sum()) + len(splits.val)
        assert any(each.startswith("copies, frame for frame: 36 of 120 clips (") for each in splits.notices)
    assert drawn[0] / drawn[1] == pytest.approx(rule.val_fraction, abs=0.05)


def test_recordings_under_several_signs_are_told_with_their_names(tmp_path: Path) -> None:
    clips = grid(signs=4, signers=5, repetitions=1)
    same = [number for number, clip in enumerate(clips) if clip.signer == "s01"]
    store = with_copies(tmp_path, (same[0], same[1]), (same[0], same[3]), blank=(same[2], same[2] + 1))
    (told,) = label_notices(store, np.arange(len(store)))
    assert told == (
        "the same recording under several signs: 1_1_0 as 1 and 2_1_0 as 2 and 4_1_0 as 4; "
        "keep each under the sign that it shows"
    )
    assert told in make_splits(store, SplitRule(split="signer:s01", val_by="signer")).notices
    assert label_notices(store, np.array(same[:1] + same[2:3])) == [], "of what is selected"


def test_copies_of_one_sign_contradict_nothing(tmp_path: Path) -> None:
    store = with_copies(tmp_path, (0, 1), (0, 2))
    assert len(store.copies(np.arange(len(store)))) == 2
    assert label_notices(store, np.arange(len(store))) == []


def test_blank_clips_are_no_copies(tmp_path: Path) -> None:
    store = with_copies(tmp_path, blank=tuple(range(0, 20, 2)))
    assert (store.content == 0).sum() == 10
    splits = make_splits(store, SplitRule(split="random"))
    assert not any("copies" in notice for notice in splits.notices)
    assert store.sign[splits.test].tolist() == [0, 1, 2, 3], "a fifth of the five clips of each sign"


def test_clips_of_the_same_numbers_in_another_shape_are_no_copies() -> None:
    clip = frames(4, (20, 3))
    assert len({content_of(clip), content_of(clip.reshape(2, 40, 3)), content_of(clip.reshape(4, 30, 2))}) == 3
