"""Which way y runs in the recordings of each signer: where it is turned for some, their signs look like no other's.

Heads lie above shoulders, whether y counts upwards or downwards.

Axes: N frames, K keypoints, C features.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ds_trainer.problems import listed
from ds_trainer.tasks.sign.holistic import is_holistic
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.mediapipe import LEFT_SHOULDER
from ds_trainer.tasks.sign.split_draws import Clips, some_of_each_signer
from ds_trainer.tasks.sign.store import ClipStore

_FRAMES_READ = 4
_CLEARLY = 0.9

Sides = dict[str, int]
"""The name of a signer -> 1 where y is larger at the head than at the shoulders, -1 where it is smaller."""

_REMEDY = "negate y in these recordings (clip[..., 1] *= -1), and x, too, where the camera stood on its head"


def turned_notices(store: ClipStore, clips: Clips) -> list[str]:
    """The signers of some clips whose y runs another way than that of most others."""
    sides = _sides(store, clips)
    turned = _turned(sides, sides)
    told = f"{listed(turned)}: y runs the other way than in recordings of the other signers; {_REMEDY}"
    return [told] if turned else []


def turned_from(store: ClipStore, clips: Clips, other: ClipStore, trained: Clips) -> list[str]:
    """The signers of some clips whose y runs another way than that of most training signers, of another store."""
    turned = _turned(_sides(store, clips), _sides(other, trained))
    return [turned_note(turned)] if turned else []


def head_side(store: ClipStore, clips: Clips) -> int:
    """1 where y is larger at the head than at the shoulders of most signers, -1 where it is smaller; 0: not known."""
    return _usual(_sides(store, clips))


def is_turned(frames_NKC: NDArray[Any], layout: KeypointLayout, side: Any) -> bool:
    """Whether y clearly runs another way in a clip than in those that a model has learnt from.

    Args:
        side: what `head_side` told of those; anything else where that is not known.
    """
    head = _head(layout)
    is_known = side in (-1, 1) and bool(head and layout.centre)
    return is_known and _above(frames_NKC, head, layout) * side < -_CLEARLY


def turned_note(names: Sequence[str]) -> str:
    """What is told of clips, by their names, whose y runs another way than those that a model has learnt from."""
    return f"{listed(names)}: y runs the other way than in the training clips; {_REMEDY}"


def _usual(sides: Sides) -> int:
    """Of two groups of one size the first counts as what is usual."""
    return next((side for side, _ in Counter(sides.values()).most_common(1)), 0)


def _turned(sides: Sides, among: Sides) -> list[str]:
    usual = _usual(among)
    return [name for name, side in sides.items() if usual and side != usual]


def _sides(store: ClipStore, clips: Clips) -> Sides:
    """Of those signers of which some frames, taken evenly from up to 1,000 clips, say it clearly."""
    head = _head(store.layout)
    sides: Sides = {}
    if not head or not store.layout.centre:
        return sides
    for signer, some in some_of_each_signer(store, clips).items():
        frames_NKC = np.concatenate(store.read_evenly(some, _FRAMES_READ))
        above = _above(frames_NKC, head, store.layout)
        if abs(above) > _CLEARLY:
            sides[store.signer_names[signer]] = int(np.sign(above))
    return sides


def _head(layout: KeypointLayout) -> list[int]:
    """The keypoints that lie above the shoulders; none where that is not known."""
    named = [keypoint for part in ("head", "face") for keypoint in layout.parts.get(part, ())]
    return named or list(layout.parts["pose"][:LEFT_SHOULDER] if is_holistic(layout) else ())


def _above(frames_NKC: NDArray[Any], head: list[int], layout: KeypointLayout) -> float:
    """The mean over frames of 1 where y is larger at the head than at the centre, -1 where it is smaller, and 0 where
    the body lies: a video may be turned by a right angle."""
    is_there_NK = (frames_NKC[..., : layout.num_coordinates] != 0).any(-1)
    x_N, y_N = (
        _middle(axis_NK, is_there_NK, head) - _middle(axis_NK, is_there_NK, list(layout.centre))
        for axis_NK in (frames_NKC[..., 0], frames_NKC[..., 1])
    )
    is_known_N = is_there_NK[:, head].any(1) & is_there_NK[:, list(layout.centre)].all(1)
    side_N = np.where(np.abs(y_N) > np.abs(x_N), np.sign(y_N), 0)
    return float(side_N[is_known_N].mean()) if is_known_N.any() else 0.0


def _middle(axis_NK: NDArray[Any], is_there_NK: NDArray[np.bool_], keypoints: list[int]) -> NDArray[np.float64]:
    """Over those that are there; the others are 0."""
    total_N = axis_NK[:, keypoints].sum(1, dtype=np.float64)
    return np.asarray(total_N / is_there_NK[:, keypoints].sum(1).clip(min=1))
