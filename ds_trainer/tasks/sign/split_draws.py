"""Draws the clips of each split: by what the data says, by signer, or by chance, the same for the same seed."""

import csv
import io
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ds_trainer.errors import SettingsError
from ds_trainer.tasks.sign.clips import NOBODY, SPLITS, evenly
from ds_trainer.tasks.sign.content import in_both
from ds_trainer.tasks.sign.store import ClipStore

Clips = NDArray[np.int64]
"""Positions of clips, or of signs, in a store."""

TEST_FRACTION = 0.2
"""Of the clips of each sign, in a random split."""

SIGNER_PREFIX = "signer:"
RULES = ("auto", "own", "random", "all")
"""What `--split` may be, beside names of signers behind `SIGNER_PREFIX`."""

# Test and validation draw from random numbers of their own, so that a change to one leaves the other as it is.
_TEST_STREAM, _VALIDATION_STREAM = 1, 2

_CLIPS_READ = 1000


def is_of(store: ClipStore, signers: Sequence[str]) -> NDArray[np.bool_]:
    """For each clip of the store whether it is of one of the signers."""
    return np.isin(store.signer, [store.signer_names.index(name) for name in signers])


def signers_of(store: ClipStore, clips: Clips) -> list[str]:
    """The names of the signers of some clips, sorted."""
    return [store.signer_names[signer] for signer in np.unique(store.signer[clips])]


def known_signers_of(store: ClipStore, clips: Clips) -> list[str]:
    """The same without `NOBODY`, who may be any of them: clips of nobody cannot be held out as of another signer."""
    return [name for name in signers_of(store, clips) if name != NOBODY]


def some_of_each_signer(store: ClipStore, clips: Clips) -> dict[int, Clips]:
    """Up to 1,000 of some clips, as many of each signer and evenly taken, by the signer's number in the store."""
    signers, place = np.unique(store.signer[clips], return_inverse=True)
    most = max(1, _CLIPS_READ // max(1, len(signers)))
    return {int(signer): evenly(clips[place == number], most) for number, signer in enumerate(signers)}


def holding_out(signers: Sequence[str]) -> str:
    """`signer:NAME[,NAME]`, as `named_signers` reads it: a name with a comma stands in quotes."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(signers)
    return SIGNER_PREFIX + line.getvalue()


def named_signers(split: str) -> list[str]:
    """The signers that `signer:NAME[,NAME]` names.

    Raises:
        SettingsError: it is no such line.
    """
    try:
        names = next(csv.reader([split.removeprefix(SIGNER_PREFIX)], skipinitialspace=True), [])
    except csv.Error as error:
        raise SettingsError(f"--split: found {split[:80]!r} ({error}), expected signer:NAME[,NAME]; mend it") from error
    return [name.strip() for name in names if name.strip()]


def resolve_split(store: ClipStore, split: str, selected: Clips) -> str:
    """What `auto` stands for with the selected clips, and `own` where the data only says what validates."""
    is_val = _validates(store, split, selected)
    if split not in ("auto", "own"):
        return split
    if (store.split[selected] == SPLITS.index("test")).any() or (split == "own" and not is_val.any()):
        return "own"
    signers = known_signers_of(store, selected[~is_val])
    return holding_out(signers[-1:]) if len(signers) > 1 else "random"


def _validates(store: ClipStore, split: str, selected: Clips) -> NDArray[np.bool_]:
    """For each of the selected clips whether it validates because the data says so."""
    is_val: NDArray[np.bool_] = store.split[selected] == SPLITS.index("val")
    return is_val if split in ("auto", "own") else np.zeros(len(selected), dtype=bool)


def split_by(store: ClipStore, given: str, selected: Clips, seed: int) -> tuple[Clips, Clips, Clips]:
    """Training, validation and test clips by what `--split` gives; validation is empty unless the data brings it."""
    split, is_val = resolve_split(store, given, selected), _validates(store, given, selected)
    if split == "own":
        is_test = store.split[selected] == SPLITS.index("test")
    elif split == "all":
        is_test = np.ones(len(selected), dtype=bool)
    elif split == "random":
        rng = np.random.default_rng([seed, _TEST_STREAM])
        is_test = np.isin(selected, _stratified(store, selected[~is_val], TEST_FRACTION, rng))
    else:
        is_test = is_of(store, named_signers(split))[selected]
    return selected[~is_val & ~is_test], selected[is_val & ~is_test], selected[is_test]


def draw_validation(store: ClipStore, train: Clips, val_by: str, val_fraction: float, seed: int) -> tuple[Clips, Clips]:
    """Training and validation clips, the latter taken out of `train`.

    Args:
        val_by: `clip` or `signer`; clips of nobody that the data names train.
        val_fraction: of the training clips or signers.
    """
    rng = np.random.default_rng([seed, _VALIDATION_STREAM])
    if val_by == "signer":
        signers = known_signers_of(store, train)
        # All but one at most; with a single signer none is left, which is reported as an empty split.
        num_signers = min(max(1, round(val_fraction * len(signers))), len(signers) - 1)
        drawn = rng.permutation(signers)[: max(num_signers, 0)].tolist()
        is_val = is_of(store, drawn)[train]
    else:
        is_val = np.isin(train, _stratified(store, train, val_fraction, rng))
    return train[~is_val], train[is_val]


def _stratified(store: ClipStore, clips: Clips, fraction: float, rng: np.random.Generator) -> Clips:
    """About `fraction` of the clips of each sign, and of all clips together; at least one, but never all of a sign.

    Fractions of a clip carry over from sign to sign, so that many signs of few clips also give their share. Copies of a
    recording count as one clip, and are drawn together.
    """
    content = store.content[clips]
    is_first = content == 0
    is_first[np.unique(content, return_index=True)[1]] = True
    shuffled = rng.permutation(clips[is_first])
    by_sign = [shuffled[store.sign[shuffled] == one] for one in np.unique(store.sign[shuffled])]
    drawn = clips[:0]
    owed = 0.0
    for of_sign in by_sign:
        owed += fraction * len(of_sign)
        num_drawn = min(int(owed + 1e-9), math.ceil(fraction * len(of_sign)), len(of_sign) - 1)
        owed -= num_drawn
        drawn = np.append(drawn, of_sign[:num_drawn])
    most = max(by_sign, key=len, default=drawn)
    if not len(drawn) and len(most) > 1:
        drawn = most[:1]
    return clips[np.isin(clips, drawn) | np.isin(content, in_both(content, store.content[drawn]))]
