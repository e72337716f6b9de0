"""Clips of any length -> a fixed number of frames.

Axes: B clips, T frames after sampling, F frames before.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ds_trainer.randomness import Draw
from ds_trainer.tasks.sign.on_device import picked
from ds_trainer.tasks.sign.presence import changes, lengths, presence

REST_FRACTION = 0.6
"""See `Sampling.rest_fraction`."""

_LAST = 1 - 1e-9
"""The end of a clip, less than a frame of any before it."""

_LEAST_MOTION = 1e-6
_USUAL = 0.9
_MOST_READ = 16


@dataclass(frozen=True)
class Sampling:
    """Which frames of a clip are taken.

    Args:
        num_frames: so many.
        motion_fraction: how far time is counted in movement instead of frames, 0 to 1: a clip that waits before its
            sign, and one whose signer is slow, then look like others.
        max_tempo_fraction: in training the tempo rises and falls within a clip, between 1 less and 1 plus this; below
            1, so that time never runs back.
        max_cut_fraction: in training a clip begins and ends up to this fraction of its length earlier or later; where
            it has no frames, the first or last one stands still.
        num_read: frames that are looked at for movement; 0: twice as many as are taken.
        rest_fraction: the median movement counts as none, or this fraction of the mean where that is less, and is taken
            off all others: trackers tremble and bodies sway while nothing is signed. Fully so in clips of as many
            frames as are looked at: shorter ones repeat frames, which stand still, so that less counts as rest
            (docs/experiments.md). 0: all counts.
    """

    num_frames: int
    motion_fraction: float = 0.0
    max_tempo_fraction: float = 0.0
    max_cut_fraction: float = 0.0
    num_read: int = 0
    rest_fraction: float = 0.0

    def frames(self, first_B: Tensor, num_frames_B: Tensor, draw: Draw | None) -> Tensor:
        """The numbers of the frames to read: int64[B, T], or if time is counted in movement as many as are looked at,
        int64[B, num_read], of which `by_motion` then makes T.

        Each clip is cut into equal bins of time, and a frame taken in each: in training anywhere in the bin, so that an
        epoch sees each clip at a slightly uneven tempo; otherwise the one at its centre. A clip shorter than the number
        of bins repeats frames, and stands still between them: only `by_motion` looks between frames.

        Args:
            first_B: number of each clip's first frame in the store.
            num_frames_B: length of each clip, at least 1.
        """
        device = first_B.device
        in_order = self.motion_fraction > 0  # which are chosen from, when it is known how the clip moves
        num_read = self.num_read or 2 * self.num_frames
        time_BT = _centres(num_read, device)[None] if in_order else self.times(draw, device)
        return first_B[:, None] + (time_BT * num_frames_B[:, None]).long()

    @staticmethod
    def read_for(lengths_N: NDArray[np.int64], num_frames: int) -> int:
        """`num_read` so that what is short in most of these clips, of so many frames each, is not missed.

        Bounded, since all of them are normalised: a clip of ten minutes is to be cut.
        """
        usual = int(np.quantile(lengths_N, _USUAL)) if len(lengths_N) else 0
        return min(usual, _MOST_READ * num_frames) if usual > 2 * num_frames else 0

    def times(self, draw: Draw | None, device: torch.device) -> Tensor:
        """When the frames are, from 0 to 1: float64[B, T] on the device of the draw too, or [1, T] without one."""
        if draw is None:
            return _centres(self.num_frames, device)[None]
        place_T = torch.arange(self.num_frames, device=device)
        # float64: in float32 the last bin's upper edge can round up to the clip's length.
        time_BT = (place_T + draw.uniform("frame", self.num_frames).double()) / self.num_frames
        return _cut(_with_other_tempo(time_BT, self.max_tempo_fraction, draw), self.max_cut_fraction, draw)

    def by_motion(
        self, clips_BFKC: Tensor, num_coordinates: int, keypoints: Sequence[int], draw: Draw | None
    ) -> Tensor:
        """Frames at times that are partly counted in movement: float[B, T, K, C], between two frames on a line.

        Args:
            clips_BFKC: normalised clips.
            keypoints: whose movement counts.
        """
        points_BFKD = clips_BFKC[..., :num_coordinates][:, :, picked(keypoints, clips_BFKC.device)]
        clock_BF = _clock(points_BFKD, self.motion_fraction, self.rest_fraction)
        time_BT = self.times(draw, clock_BF.device).to(clock_BF.dtype).expand(clips_BFKC.shape[0], -1).contiguous()
        # Counted, not searched: ONNX has no search in sorted numbers.
        after_BT = (clock_BF[:, None] <= time_BT[..., None]).sum(-1).clamp(1, clock_BF.shape[1] - 1)
        begin_BT, end_BT = clock_BF.gather(1, after_BT - 1), clock_BF.gather(1, after_BT)
        share_BT = ((time_BT - begin_BT) / (end_BT - begin_BT).clamp(min=_LEAST_MOTION)).clamp(0, 1)
        return _between(clips_BFKC, after_BT, share_BT, num_coordinates)


def _centres(num_frames: int, device: torch.device) -> Tensor:
    return (torch.arange(num_frames, device=device) + 0.5).double() / num_frames


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


def _clock(points_BFKD: Tensor, motion_fraction: float, rest_fraction: float) -> Tensor:
    """When each frame is, from 0 to 1, if time passes with movement: float32[B, F], rising."""
    moved_BFKD, both_BFK1 = changes(points_BFKD, presence(points_BFKD), lag=1)
    way_BF = lengths(moved_BFKD).sum((2, 3)) / both_BFK1.sum((2, 3)).clamp(min=1)
    mean_B1 = way_BF.mean(1, keepdim=True)
    if rest_fraction > 0:
        middle_B1 = way_BF.sort(1).values[:, way_BF.shape[1] // 2, None]
        way_BF = (way_BF - torch.minimum(middle_B1, rest_fraction * mean_B1)).clamp(min=0)
        mean_B1 = way_BF.mean(1, keepdim=True)
    way_BF = torch.where(mean_B1 > _LEAST_MOTION, way_BF / mean_B1.clamp(min=_LEAST_MOTION), 1.0)
    passed_BF = (motion_fraction * way_BF + (1 - motion_fraction)).cumsum(1)
    passed_BF = torch.cat([torch.zeros_like(passed_BF[:, :1]), passed_BF], dim=1)
    return passed_BF / passed_BF[:, -1:]


def _between(clips_BFKC: Tensor, after_BT: Tensor, share_BT: Tensor, num_coordinates: int) -> Tensor:
    """Between the frame before `after_BT` and that frame; a keypoint that one of them lacks is the nearer one's."""
    one_BTKC, other_BTKC = _frames_at(clips_BFKC, after_BT - 1), _frames_at(clips_BFKC, after_BT)
    both_BTK1 = presence(one_BTKC[..., :num_coordinates]) * presence(other_BTKC[..., :num_coordinates])
    share_BTK1 = share_BT[:, :, None, None].to(clips_BFKC.dtype)
    share_BTK1 = torch.where(both_BTK1 > 0, share_BTK1, (share_BTK1 >= 0.5).to(clips_BFKC.dtype))
    return torch.lerp(one_BTKC, other_BTKC, share_BTK1)


def _frames_at(clips_BFKC: Tensor, frame_BT: Tensor) -> Tensor:
    """Other frames of each clip, planar as the clips are: float[B, T, K, C]."""
    num_clips, num_frames = clips_BFKC.shape[:2]
    first_B1 = torch.arange(num_clips, device=frame_BT.device)[:, None] * num_frames
    # Of all clips one after the other, whole rows of keypoints are taken: `gather` looks up each number by itself.
    rows_CNK = clips_BFKC.movedim(-1, 0).flatten(1, 2)
    taken_CNK = rows_CNK.index_select(1, (first_B1 + frame_BT).flatten())
    return taken_CNK.view(-1, *frame_BT.shape, clips_BFKC.shape[2]).movedim(0, -1)
