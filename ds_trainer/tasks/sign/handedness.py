"""Which hand makes a sign, and whether that tells who signs or what is signed.

A left-handed signer makes the signs of all others with the other hand. Where people use either hand, as in gestures of
the left and of the right, the hand is part of the sign.

Axes: B clips, T frames, K keypoints, C features, D coordinates, k keypoints of one side.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ds_trainer.problems import listed
from ds_trainer.tasks.sign.layout import HANDS, KeypointLayout
from ds_trainer.tasks.sign.on_device import picked
from ds_trainer.tasks.sign.presence import presence
from ds_trainer.tasks.sign.split_draws import Clips, some_of_each_signer
from ds_trainer.tasks.sign.store import ClipStore

Sides = tuple[tuple[int, ...], tuple[int, ...]]

_MUCH_MORE = 2.0
_IN_SIGHT = 0.5
_STILL = 0.25
_ROUNDING = 1e-5  # of the largest coordinate: more than a mean in float32 is off by, and less than any body moves
_MOST_WITH_THE_OTHER = 0.2
_FRAMES_READ, _CLIPS_AT_ONCE = 32, 50


@dataclass(frozen=True)
class Handedness:
    """What the clips of a split say of hands.

    Args:
        tells_signers: whether a clip of the left hand may be seen in a mirror.
        notices: what the log must say of it.
    """

    tells_signers: bool
    notices: list[str]

    @classmethod
    def of(cls, store: ClipStore, clips: Clips) -> "Handedness":
        """Of up to 1,000 of the clips, as many of each signer."""
        sides = store.layout.sides
        if sides is None:
            return cls(True, [])
        by_signer = some_of_each_signer(store, clips)
        uses_SX = np.array([_num_uses(store, own, sides) for own in by_signer.values()]).reshape(-1, 2)
        num_left, num_both = int(uses_SX[:, 0].sum()), int(uses_SX.sum())
        if uses_SX.min(1).sum() > _MOST_WITH_THE_OTHER * num_both:
            told = (
                "signers make some signs with the left hand and some with the right: no clip is mirrored for its hand"
            )
            return cls(False, [told])
        is_left_S = uses_SX[:, 0] > uses_SX[:, 1]
        names = [store.signer_names[signer] for signer, is_left in zip(by_signer, is_left_S, strict=True) if is_left]
        told = f"seen in a mirror, as signed with the left hand: {num_left} of {num_both} clips of one hand"
        return cls(True, [f"{told} ({listed(names)})"] if names else [])


def is_left_handed(clips_BTKC: Tensor, layout: KeypointLayout) -> Tensor | None:
    """bool[B], the clips in which the left hand does more than twice as much as the right; None where none is known."""
    sides = layout.sides
    if sides is None:
        return None
    left_B, right_B = _done_by(clips_BTKC, layout, sides)
    return left_B > _MUCH_MORE * right_B


def _done_by(clips_BTKC: Tensor, layout: KeypointLayout, sides: Sides) -> tuple[Tensor, Tensor]:
    """How much each side does, float[B] each: how often a hand is seen, as one that rests is mostly out of sight, or
    where both are in sight how far it travels; of parts that are no hands how far they get from where they mostly are.
    """
    both_BTkD = torch.cat(
        [clips_BTKC[:, :, picked(side, clips_BTKC.device), : layout.num_coordinates] for side in sides]
    )
    if set(HANDS) <= set(layout.parts):
        return _done_by_hands(both_BTkD)
    rounding_2B = _ROUNDING * both_BTkD.abs().amax((1, 2, 3)).view(2, -1)
    # No `chunk`: its graph takes one number of clips alone.
    left_B, right_B = torch.maximum(_moved(both_BTkD).view(2, -1), rounding_2B.amax(0))
    return left_B, right_B


def _done_by_hands(both_BTkD: Tensor) -> tuple[Tensor, Tensor]:
    """How much the hands do that are the first and the second half of `both_BTkD`.

    They travel by the mean distance from where they are on average, along the axes. No squares: a tracker's jump in one
    frame is not to outweigh a sign. Less than a quarter of its size a hand always does: one that is held trembles.
    """
    present_BTk1 = presence(both_BTkD)
    seen_BT11 = present_BTk1.amax(2, keepdim=True)
    middle_BT1D = both_BTkD.sum(2, keepdim=True) / present_BTk1.sum(2, keepdim=True).clamp(min=1)
    mean_B11D = middle_BT1D.sum(1, keepdim=True) / seen_BT11.sum(1, keepdim=True).clamp(min=1)
    size_B = ((both_BTkD - middle_BT1D) * present_BTk1).abs().mean((1, 2, 3))
    way_B = torch.maximum(((middle_BT1D - mean_B11D) * seen_BT11).abs().mean((1, 2, 3)), _STILL * size_B)
    seen_2B, way_2B = seen_BT11.mean((1, 2, 3)).view(2, -1), way_B.view(2, -1)
    left_B, right_B = torch.where(seen_2B.amin(0) > _IN_SIGHT, way_2B, seen_2B)
    return left_B, right_B


def _moved(side_BTkD: Tensor) -> Tensor:
    present_BTk1 = presence(side_BTkD)
    mean_B1kD = side_BTkD.sum(1, keepdim=True) / present_BTk1.sum(1, keepdim=True).clamp(min=1)
    squared_BTkD = (side_BTkD - mean_B1kD).square() * present_BTk1
    return (squared_BTkD.sum((1, 2, 3)) / present_BTk1.sum((1, 2, 3)).clamp(min=1)).sqrt()


def _num_uses(store: ClipStore, clips: Clips, sides: Sides) -> tuple[int, int]:
    """How many of the clips are of the left hand alone or nearly so, and how many of the right."""
    counts = np.zeros(2, dtype=np.int64)
    for begin in range(0, len(clips), _CLIPS_AT_ONCE):
        some = clips[begin : begin + _CLIPS_AT_ONCE]
        left_B, right_B = _done_by(torch.from_numpy(store.read_evenly(some, _FRAMES_READ)), store.layout, sides)
        counts += [int((one > _MUCH_MORE * other).sum()) for one, other in ((left_B, right_B), (right_B, left_B))]
    return int(counts[0]), int(counts[1])
