"""Clips of any length -> a fixed number of frames.

Axes: B clips, T frames after sampling.
"""

import math

import torch
from torch import Tensor

from ds_trainer.randomness import Draw


_LAST = 1 - 1e-9
"""The end of a clip, less than a frame of any before it."""


def sampled_frames(
    first_B: Tensor,
    num_frames_B: Tensor,
    num_samples: int,
    draw: Draw | None,
    max_tempo_fraction: float = 0.0,
    max_cut_fraction: float = 0.0,
) -> Tensor:
    """Cut each clip into `num_samples` equal bins of time and choose a frame in each: int64[B, T].

    In training the frame is drawn anywhere in its bin, so that an epoch sees each clip at a slightly uneven tempo;
    otherwise it is the one at the bin's centre. A clip shorter than the number of bins repeats frames.

    Args:
        first_B: number of each clip's first frame in the store.
        num_frames_B: length of each clip, at least 1.
        max_tempo_fraction: in training the tempo rises and falls within a clip, between 1 less and 1 plus this; below
            1, so that time never runs back.
        max_cut_fraction: in training a clip begins and ends up to this fraction of its length earlier or later; where
            it has no frames, the first or last one stands still.
    """
    place_T = torch.arange(num_samples)
    within_BT = draw.uniform("frame", num_samples) if draw is not None else torch.full((1, num_samples), 0.5)
    # float64: in float32 the last bin's upper edge can round up to the clip's length.
    time_BT = (place_T + within_BT.double()) / num_samples
    if draw is not None:
        time_BT = _cut(_with_other_tempo(time_BT, max_tempo_fraction, draw), max_cut_fraction, draw)
    return first_B[:, None] + (time_BT * num_frames_B[:, None]).long()


def _with_other_tempo(time_BT: Tensor, most: float, draw: Draw) -> Tensor:
    """Time from 0 to 1 that runs at a tempo of 1 + a sin(pi (2 t + phase)) instead of 1, a being up to `most`."""
    if most == 0:
        return time_BT
    height_B1 = draw.between("tempo", -most, most).double() / math.pi
    phase_B1 = draw.uniform("tempo phase").double()
    return time_BT + height_B1 * (math.pi * time_BT).sin() * (math.pi * (time_BT + phase_B1)).sin()


def _cut(time_BT: Tensor, most: float, draw: Draw) -> Tensor:
    if most == 0:
        return time_BT
    begin_B1, end_B1 = (draw.between(name, -most, most).double() for name in ("begin", "end"))
    return (begin_B1 + time_BT * (1 + end_B1 - begin_B1)).clamp(0, _LAST)
