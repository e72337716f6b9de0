"""What the log must say about splits: whom results hold for, which signs are selected, never trained or not tested."""

import re
from collections.abc import Sequence

import numpy as np

from ds_trainer.problems import listed
from ds_trainer.tasks.sign.clips import NAMING_SIGNERS, NOBODY
from ds_trainer.tasks.sign.split_draws import SIGNER_PREFIX, Clips, is_of, known_signers_of, signers_of
from ds_trainer.tasks.sign.store import ClipStore

_LEADING_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")


def shared_signers(store: ClipStore, clips: Clips, others: Clips) -> list[str]:
    """The names of signers who are on both sides, sorted."""
    return sorted(set(signers_of(store, clips)) & set(signers_of(store, others)))


def range_notices(signs_from: int | None, signs_to: int | None, numbers: Sequence[int]) -> list[str]:
    """How many of the selected signs there are, if not all."""
    first = 1 if signs_from is None else signs_from
    if signs_to is None or signs_to - first + 1 <= len(numbers):
        return []
    return [
        f"signs {first}..{signs_to} are selected, of which {len(numbers)} exist here "
        f"(numbers {numbers[0]}..{numbers[-1]}): training on those"
    ]


def place_notices(numbers: Sequence[int], names: Sequence[str]) -> list[str]:
    """Signs are selected by their places, which folders that are called by numbers hide."""
    if list(names) == [str(number) for number in numbers]:
        return []
    return [f"signs {numbers[0]}..{numbers[-1]} are selected: {listed(names)}"]


def case_notices(names: Sequence[str]) -> list[str]:
    """Names of which one might be a slip for another."""
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(_LEADING_ZEROS.sub("", name.casefold()), []).append(name)
    alike = [" and ".join(each) for each in spellings.values() if len(each) > 1]
    told = "names that differ only by capitals or leading zeros, taken for different ones"
    return [f"{listed(alike)}: {told}"] if alike else []


def split_notices(store: ClipStore, split: str, train: Clips, val: Clips, test: Clips) -> list[str]:
    """Whom what is reached on the test split holds for."""
    shared = [name for name in shared_signers(store, train, test) if name != NOBODY]
    signers = signers_of(store, np.concatenate([train, val, test]))
    if signers == [NOBODY]:
        return [
            "the data does not say who signs: the same people may be in training and test, which flatters; "
            f"{NAMING_SIGNERS}"
        ]
    if split == "random":
        advice = f"; --split {SIGNER_PREFIX}NAME measures unseen signers" if len(signers) > 1 else ""
        return [f"the split is random: the same people are in training and test, so results flatter{advice}"]
    if shared:
        return [f"{listed(shared)}: in training and in test, so results hold for signers who are known"]
    unseen = f"unseen signers in test: {listed(known_signers_of(store, test)) or 'none that the data names'}"
    if shared_signers(store, train, val):
        unseen += "; those in validation train, too: expect less of the test than of validation"
    for side, clips in {"training": train, "test": test}.items():
        if NOBODY in signers_of(store, clips):
            num_unnamed = int(is_of(store, [NOBODY])[clips].sum())
            unseen += f"; {num_unnamed} {side} clips are of nobody that the data names, who may be the same people"
    return [unseen]


def copy_notices(store: ClipStore, clips: Clips) -> list[str]:
    """How many of the clips are copies: those within one side of the split are not refused."""
    copies = store.copies(clips)
    told = f"copies, frame for frame: {len(copies)} of {len(clips)} clips ({listed(copies)})"
    return [f"{told}; a recording counts as often as it stands there"] if copies else []


def label_notices(store: ClipStore, clips: Clips) -> list[str]:
    """Which recordings stand under several signs: all but one of these labels are wrong."""
    clips_of: dict[int, dict[str, str]] = {}
    content, counts = np.unique(store.content[clips], return_counts=True)
    for clip in clips[np.isin(store.content[clips], content[(counts > 1) & (content != 0)])]:
        signs = clips_of.setdefault(store.content[clip], {})
        signs.setdefault(store.sign_names[store.sign[clip]], store.clip_ids[clip])
    several = [signs for signs in clips_of.values() if len(signs) > 1]
    told = [" and ".join(f"{clip} as {sign}" for sign, clip in signs.items()) for signs in several]
    if not told:
        return []
    return [f"the same recording under several signs: {listed(told)}; keep each under the sign that it shows"]


def sign_notices(store: ClipStore, sign_of_class: Clips, clips: Clips, notice: str) -> list[str]:
    """Signs that none of these clips shows."""
    absent = [store.sign_names[sign] for sign in np.setdiff1d(sign_of_class, store.sign[clips])]
    return [f"{listed(absent)}: {notice}"] if absent else []
