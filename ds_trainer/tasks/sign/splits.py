"""Which clips train, which validate and which test: pure functions of the store, the settings and the seed."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ds_trainer.errors import DataError
from ds_trainer.problems import listed, nearest_name
from ds_trainer.tasks.sign.content import in_both
from ds_trainer.tasks.sign.split_draws import (
    RULES,
    SIGNER_PREFIX,
    Clips,
    draw_validation,
    is_of,
    named_signers,
    resolve_split,
    signers_of,
    split_by,
)
from ds_trainer.tasks.sign.split_notices import (
    case_notices,
    copy_notices,
    label_notices,
    place_notices,
    range_notices,
    shared_signers,
    sign_notices,
    split_notices,
)
from ds_trainer.tasks.sign.store import ClipStore
from ds_trainer.tasks.sign.upright import turned_notices


@dataclass(frozen=True)
class SplitRule:
    """How to split, as the run settings say it.

    Args:
        split: `own`: as the data comes, where it says what tests; `random`; `signer:NAME[,NAME]`: these signers are
            the test split; `all`: every clip is, for a model that was trained elsewhere; `auto`: own where the data has
            one, else the last signer is left out, else (one signer) random. With `auto` and `own` what validates by
            the data validates, also where the data does not say what tests.
        val_by: whether validation takes clips of each sign from the training split, or all clips of some signers. A
            validation split of the data is used as it is.
        val_fraction: of the training signers or clips.
        signers: the only ones to use; None: all.
        signs_from, signs_to: numbers of the first and last sign to use, inclusive; None: no limit.
    """

    split: str = "auto"
    val_by: Literal["clip", "signer"] = "clip"
    val_fraction: float = 0.15
    signers: Sequence[str] | None = None
    signs_from: int | None = None
    signs_to: int | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Splits:
    """Clips of the store by split, ascending, and the classes that they have.

    Args:
        sign_of_class: for each class of the model an index into the store's `sign_names`: only selected signs are
            classes.
        sign_numbers: the number of each class's sign in the data, for messages.
        notices: what the log must say about these splits.
    """

    train: Clips
    val: Clips
    test: Clips
    sign_of_class: Clips
    sign_numbers: list[int]
    notices: list[str] = field(default_factory=list)


def make_splits(store: ClipStore, rule: SplitRule) -> Splits:
    """Split the clips of a store.

    Raises:
        DataError: with all that is impossible: an unknown split or signer, a range without clips, an empty split, or a
            signer on both sides of a split that claims otherwise.
    """
    problems = impossible_in(store, rule)
    if problems:
        raise DataError(problems)
    is_selected = is_in_range(store, rule)[store.sign]
    if rule.signers is not None:
        is_selected &= is_of(store, rule.signers)
    selected = np.flatnonzero(is_selected)
    split = resolve_split(store, rule.split, selected)
    train, val, test = split_by(store, rule.split, selected, rule.seed)
    brings_val = len(val) > 0
    if not brings_val:
        train, val = draw_validation(store, train, rule.val_by, rule.val_fraction, rule.seed)
    problems = _problems_of(store, split, train, val, test)
    if problems:
        raise DataError(problems)
    sign_of_class = np.unique(store.sign[selected])
    numbers = [store.sign_numbers[sign] for sign in sign_of_class]
    names = [store.sign_names[sign] for sign in sign_of_class]
    notices = range_notices(rule.signs_from, rule.signs_to, numbers)
    if not is_in_range(store, rule).all():
        notices += place_notices(numbers, names)
    notices += case_notices(names)
    notices += case_notices(signers_of(store, selected))
    if brings_val and split != "own":
        notices.append(f"the data says what validates but not what tests: as {split} of its other clips do")
    if len(train):
        notices += split_notices(store, split, train, val, test) + copy_notices(store, selected)
        notices += label_notices(store, selected)
        notices += sign_notices(store, sign_of_class, train, "no training clips, so never recognised")
        notices += sign_notices(store, sign_of_class, test, "no test clips, so not measured")
    notices += turned_notices(store, selected)
    return Splits(train, val, test, sign_of_class, numbers, notices)


def is_in_range(store: ClipStore, rule: SplitRule) -> NDArray[np.bool_]:
    """For each sign of the store whether the rule selects it."""
    numbers = np.array(store.sign_numbers)
    first = numbers[0] if rule.signs_from is None else rule.signs_from
    last = numbers[-1] if rule.signs_to is None else rule.signs_to
    found: NDArray[np.bool_] = (numbers >= first) & (numbers <= last)
    return found


def impossible_in(store: ClipStore, rule: SplitRule) -> list[str]:
    """What the rule asks for that the store does not have."""
    problems = []
    named = {"--signers": list(rule.signers or [])}
    if rule.split.startswith(SIGNER_PREFIX):
        named["--split"] = named_signers(rule.split)
    elif rule.split not in RULES:
        problems.append(f"--split: found {rule.split!r}, expected {', '.join(RULES)} or signer:NAME; change it")
    elif rule.split == "own" and not store.split.any():
        problems.append("--split: found own, but the data brings no split; expected random or signer:NAME")
    for setting, names in named.items():
        for name in sorted(set(names) - set(store.signer_names)):
            remedy = nearest_name(name, store.signer_names)
            problems.append(f"{setting}: found signer {name!r}, expected one of the data's; {remedy}")
    if not is_in_range(store, rule).any():
        wanted = f"--selected_signs_from {rule.signs_from} --selected_signs_to {rule.signs_to}"
        exist = f"{store.sign_numbers[0]}..{store.sign_numbers[-1]}"
        problems.append(f"{wanted}: found no sign with clips in this range, expected one within {exist}; change it")
    return problems


def _problems_of(store: ClipStore, split: str, train: Clips, val: Clips, test: Clips) -> list[str]:
    """What makes the three splits unusable."""
    remedies = {
        "train": (train, "choose other --split, --signers or signs"),
        "val": (val, "change --val_by or --val_fraction, or give more training signers and clips"),
        "test": (test, "choose other --split, --signers or signs"),
    }
    rest = np.concatenate([train, val])
    if split != "all" and not len(rest) and len(test):
        return [
            f"--split {split}: found no clip in the train split, all {len(test)} in the test split, expected some in "
            "each; choose other --split, --signers or signs, or, to score them all with launch/evaluate.py, --split all"
        ]
    if split != "all" and len(rest) == len(np.unique(store.sign[rest])) and len(signers_of(store, rest)) < 2:
        remedies["val"] = (val, "no sign has two clips that are not tested: give more")
    problems = [
        f"--split {split}: found no clip in the {name} split, expected at least one; {remedy}"
        for name, (clips, remedy) in remedies.items()
        if not len(clips) and (split != "all" or name == "test")
    ]
    shared = shared_signers(store, rest, test)
    if split == "own" and store.claims_unseen_signers and shared:
        problems.append(
            f"--split own: found {listed(shared)} in training and in test, expected unseen signers as the data "
            "claims; mend the data or give another --split, such as signer:NAME"
        )
    return problems + _leaks(store, split, {"training": train, "validation": val, "test": test})


def _leaks(store: ClipStore, split: str, clips_of: Mapping[str, Clips]) -> list[str]:
    """The same recording on both sides of a split, under whatever name."""
    problems = []
    for (one, clips), (other, others) in itertools.combinations(clips_of.items(), 2):
        copied = in_both(store.content[clips], store.content[others])
        if len(copied):
            pairs = [" and ".join(_first_of(store, content, side) for side in (clips, others)) for content in copied]
            num_copies = len(store.copies(np.arange(len(store))))
            problems.append(
                f"--split {split}: found the same recording in {one} and in {other}: clips {listed(pairs)}, expected "
                f"each on one side; remove the copies from the data, which has {num_copies} in all"
            )
    return problems


def _first_of(store: ClipStore, content: np.uint64, clips: Clips) -> str:
    """The name of the first clip of this content."""
    return str(store.clip_ids[clips[store.content[clips] == content][0]])
