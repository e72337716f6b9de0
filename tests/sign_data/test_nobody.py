"""Clips of which the data does not say who signs are never held out as those of an unseen signer."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ds_trainer.cross_validation.command import signers_of_folds
from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.prepare import resolve_store
from ds_trainer.tasks.sign.splits import SplitRule, make_splits
from ds_trainer.tasks.sign.store import ClipStore

from .writers import frames, signers, write_index

OF_NOBODY = "clips are of nobody that the data names, who may be the same people"


def stored(tmp_path: Path, *names: str, split_of: dict[str, str] | None = None) -> ClipStore:
    """Two signs, four clips of each by each of the signers; "" is in the data a blank."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [
        {"path": f"{place}{name}{sign}.npy", "sign": sign, "signer": name, "split": (split_of or {}).get(name, "")}
        for name in names
        for sign in "ab"
        for place in range(4)
    ]
    for seed, row in enumerate(rows):
        np.save(folder / row["path"], frames(3, seed=seed))
    write_index(folder / "index.csv", rows)
    return ClipStore.open(resolve_store(folder, None, tmp_path / "stores", None))


def test_nobody_is_not_held_out_and_trains(tmp_path: Path) -> None:
    store = stored(tmp_path, "anna", "ben", "")
    splits = make_splits(store, SplitRule())
    assert signers(store, splits.test) == {"ben"}
    assert signers(store, splits.train) == {"anna", "unknown"}
    (told,) = splits.notices
    assert told.startswith("unseen signers in test: ben; ")
    assert told.endswith(f" training {OF_NOBODY}")


def test_one_signer_and_nobody_are_drawn_at_random(tmp_path: Path) -> None:
    splits = make_splits(stored(tmp_path, "anna", ""), SplitRule())
    assert splits.notices[0].startswith("the split is random: ")


@pytest.mark.parametrize("seed", range(6))
def test_nobody_does_not_validate_as_a_signer(tmp_path: Path, seed: int) -> None:
    store = stored(tmp_path, "anna", "ben", "")
    rule = SplitRule(split="random", val_by="signer", val_fraction=0.5, seed=seed)
    assert "unknown" not in signers(store, make_splits(store, rule).val)


def test_one_signer_and_nobody_leave_no_signer_to_validate(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no clip in the val split.*--val_by"):
        make_splits(stored(tmp_path, "anna", "ben", ""), SplitRule(val_by="signer"))


@pytest.mark.parametrize(
    ("split_of", "told"),
    [
        (
            {"anna": "train", "ben": "test", "": "test"},
            f"unseen signers in test: ben; those in validation train, too: "
            f"expect less of the test than of validation; 8 test {OF_NOBODY}",
        ),
        (
            {"anna": "train", "ben": "train", "": "test"},
            f"unseen signers in test: none that the data names; those in "
            f"validation train, too: expect less of the test than of validation; 8 test {OF_NOBODY}",
        ),
    ],
)
def test_nobody_in_the_test_split_of_the_data_is_told(tmp_path: Path, split_of: dict[str, str], told: str) -> None:
    assert make_splits(stored(tmp_path, "anna", "ben", "", split_of=split_of), SplitRule()).notices == [told]


def test_nobody_on_both_sides_is_no_known_signer(tmp_path: Path) -> None:
    store = stored(tmp_path, "anna", "ben", "", split_of={"anna": "train", "ben": "test", "": "train"})
    split = store.split.copy()
    split[np.flatnonzero(store.signer == store.signer_names.index("unknown"))[::2]] = 3
    (told,) = make_splits(replace(store, split=split), SplitRule()).notices
    assert told.startswith("unseen signers in test: ben; ")
    assert told.endswith(f" training {OF_NOBODY}; 4 test {OF_NOBODY}")
    with pytest.raises(
        DataError, match=r"found unknown in training and in test.*give another --split, such as signer:NAME$"
    ):
        make_splits(replace(store, split=split, claims_unseen_signers=True), SplitRule())


def test_a_sweep_has_no_fold_of_nobody(tmp_path: Path) -> None:
    settings = SimpleNamespace(signers=[], selected_signs_from=None, selected_signs_to=None)
    assert signers_of_folds(settings, stored(tmp_path, "anna", "ben", "")) == ["anna", "ben"]


def test_of_nobody_alone_is_told_as_before(tmp_path: Path) -> None:
    store = stored(tmp_path, "")
    settings = SimpleNamespace(signers=[], selected_signs_from=None, selected_signs_to=None)
    assert signers_of_folds(settings, store) == ["unknown"]
    assert make_splits(store, SplitRule()).notices[0].startswith("the data does not say who signs: ")
