"""Synthetic clips of any number: signs that can be learned, to measure and to test with when there are no recordings.

A clip is a function of the settings and its own number alone, and is made when it is asked for: nothing grows with the
number of clips, and fewer clips are the first of more. The split is KArSL's: of 50 clips of a sign by a signer 42 train
and 8 test; 75,300 clips of 502 signs by 3 signers are as many as there.

What tells signs apart is where the hands go, how they turn and how their fingers bend; what does not: the size and the
place of a signer, habits, tempo, pauses, drift, the noise of every keypoint, and hands that are not found. The nearest
training clip, normalised and sampled at 16 frames, shows the sign of 0.88 of the test clips among 20 signs (1,000
clips), and of 0.67 among 100 (4,000 clips).

Axes: T frames, J joints, K keypoints, C features: x, y, z, visibility.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ds_trainer.errors import SettingsError
from ds_trainer.problems import problems_of
from ds_trainer.tasks.sign.clips import ClipSource, RawClip
from ds_trainer.tasks.sign.known_layouts import layout_for
from ds_trainer.tasks.sign.synthetic_body import HANDS, NUM_JOINTS, NUM_PHASES, keypoints_of, sign_motion

VERSION = 1
"""Rises when the same settings would give other clips."""

Frames = NDArray[np.float32]

_SIGNERS, _CLIPS, _NOISE = 4, 5, 6  # streams of random numbers, after those in synthetic_body.py
_NUM_NOISE_ROWS = 4096
_NOISE_C = np.array([0.005, 0.005, 0.012, 0.02], dtype=np.float32)
_COORDINATES_C = np.array([1, 1, 1, 0], dtype=np.float32)
_DRIFT_C = 0.07 * _COORDINATES_C
"""Of a hand, and of the whole body, in distances between the shoulders."""
_GAP_FRACTION = 0.3
"""Of the clips, for each hand: it is not found for a while."""


class SyntheticSettings(BaseModel):
    """What synthetic clips are to be made; the flags of launch/prepare.py have these names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_clips: int = Field(description="how many clips to make", ge=1, le=10**9)
    num_signs: int = Field(502, description="how many signs they show", ge=1, le=10**6)
    num_signers: int = Field(3, description="how many signers they are by", ge=1, le=10**6)
    min_frames: int = Field(30, description="frames of the shortest clips", ge=1, le=10_000)
    max_frames: int = Field(60, description="frames of the longest clips", ge=1, le=10_000)
    layout: Literal["karsl", "holistic_75", "holistic_543"] = Field(
        "karsl",
        description="their keypoints: karsl, holistic_75 or holistic_543; of --data: a file that says what they are",
    )
    seed: int = Field(0, description="decides everything about them", ge=0, lt=2**63)

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> "SyntheticSettings":
        if self.min_frames > self.max_frames:
            raise ValueError(f"min_frames {self.min_frames} lies above max_frames {self.max_frames}; swap them")
        return self

    @classmethod
    def from_flags(cls, flags: Mapping[str, str]) -> "SyntheticSettings":
        """The settings that flags give, by their names without dashes.

        Raises:
            SettingsError: with all that is impossible.
        """
        try:
            return cls.model_validate(flags)
        except ValidationError as error:
            raise SettingsError([f"--{problem}" for problem in problems_of(error, cls)]) from error


def synthetic_source(settings: SyntheticSettings) -> ClipSource:
    """The clips that the settings describe: sign after sign, then the next signer, then the next repetition."""
    return ClipSource("synthetic clips", settings.num_clips, settings.num_signs, _clips(settings))


def _clips(settings: SyntheticSettings) -> Iterator[RawClip]:
    body = _Body.of(settings)
    for number in range(settings.num_clips):
        turn, sign = number // settings.num_signs, number % settings.num_signs + 1
        repetition, signer = turn // settings.num_signers, turn % settings.num_signers + 1
        split = "test" if _is_test(repetition, sign) else "train"
        clip_id = f"{signer:02}-{split}/{sign:04}/{repetition}"
        yield RawClip(_frames(settings, body, number, sign, signer), sign, f"{signer:02}", split, clip_id, "synthetic")


def _is_test(repetition: int, sign: int) -> bool:
    """Eight of any 50 repetitions that follow one another, evenly spread; never the first.

    Signs begin in different places, so that a few repetitions give a test split too.
    """
    return (repetition + 49 - (sign - 1) % 5) * 8 % 50 < 8


@dataclass(frozen=True, eq=False)
class _Body:
    """What all clips share.

    Args:
        joint_K: the joint that each keypoint hangs on.
        offset_KC: where it is, seen from that joint; as a feature that is no coordinate: 1.
        hands: the keypoints of the left and of the right hand.
        noise: [frames, K, C], more frames than a clip has: each clip takes some of them, from anywhere.
    """

    joint_K: NDArray[np.intp]
    offset_KC: Frames
    hands: tuple[slice, slice]
    noise: Frames

    @classmethod
    def of(cls, settings: SyntheticSettings) -> "_Body":
        joint_K, offset_K3 = keypoints_of(settings.layout)
        offset_KC = np.concatenate([offset_K3, np.ones((len(joint_K), 1))], axis=1).astype(np.float32)
        layout = layout_for(*offset_KC.shape)
        hands = [layout.parts[hand] for hand in ("left_hand", "right_hand")]
        rng = np.random.default_rng([settings.seed, _NOISE])
        num_rows = _NUM_NOISE_ROWS + settings.max_frames
        noise = rng.standard_normal((num_rows, *offset_KC.shape), dtype=np.float32) * _NOISE_C
        noise[..., 3] = -np.minimum(np.abs(noise[..., 3]), 1)
        left, right = (slice(hand[0], hand[-1] + 1) for hand in hands)
        return cls(joint_K, offset_KC, (left, right), noise)


@dataclass(frozen=True, eq=False)
class _Signer:
    """How a signer differs from others.

    Args:
        size: distance of the shoulders, as a fraction of the image.
        place_C: the middle between them, in the image.
        build_C: how much longer or shorter the body is than it is wide.
        pace: 0 for short clips .. 1 for long ones.
        reach: how far all movements go.
        habit_JC: where the joints are held differently.
    """

    size: float
    place_C: Frames
    build_C: Frames
    pace: float
    reach: float
    habit_JC: Frames


@lru_cache(maxsize=1024)
def _signer(seed: int, signer: int) -> _Signer:
    rng = np.random.default_rng([seed, _SIGNERS, signer])
    size, pace, reach, x, y, build = rng.random(6).tolist()
    habit_JC = rng.normal(0, 0.01, (NUM_JOINTS, 4))
    for hand in HANDS:
        habit_JC[hand] += rng.normal(0, 0.06, 4)
    return _Signer(
        size=0.2 + 0.1 * size,
        place_C=np.array([0.45 + 0.1 * x, 0.45 + 0.1 * y, 0, 0], dtype=np.float32),
        build_C=np.array([1, 0.9 + 0.2 * build, 1, 1], dtype=np.float32),
        pace=pace,
        reach=0.85 + 0.3 * reach,
        habit_JC=(habit_JC * _COORDINATES_C).astype(np.float32),
    )


def _frames(settings: SyntheticSettings, body: _Body, number: int, sign: int, signer: int) -> Frames:
    """The frames [T, K, C] of a clip. Only a gather and two sums run over all keypoints: the rest is done on joints."""
    rng = np.random.default_rng([settings.seed, _CLIPS, number])
    who, motion = _signer(settings.seed, signer), sign_motion(settings.seed, sign)
    length, reach, *timing = rng.random(5).tolist()
    more_frames = (settings.max_frames - settings.min_frames + 1) * (0.4 * who.pace + 0.6 * length)
    time_T = np.linspace(0, 1, settings.min_frames + int(more_frames), dtype=np.float32)
    joints_TJC = _joints(motion.joints_PJC, time_T, timing)
    joints_TJC *= who.reach * (0.9 + 0.2 * reach)
    joints_TJC += who.habit_JC
    sway_C, drift_3HC = (rng.standard_normal(shape, dtype=np.float32) * _DRIFT_C for shape in (4, (3, 2, 4)))
    _let_drift(joints_TJC, drift_3HC, time_T)
    joints_TJC *= who.size
    still_KC = body.offset_KC * who.build_C + sway_C
    still_KC[:, :3] *= who.size
    frames_TKC = np.take(joints_TJC, body.joint_K, axis=1)
    frames_TKC += still_KC + who.place_C
    first_row = int(rng.integers(_NUM_NOISE_ROWS))
    frames_TKC += body.noise[first_row : first_row + len(time_T)]
    _lose_hands(frames_TKC, body.hands, motion.is_two_handed, rng)
    return frames_TKC


def _joints(motion_PJC: Frames, time_T: Frames, timing: Sequence[float]) -> Frames:
    """The joints [T, J, C] of a sign after a pause and before another, faster here and slower there.

    Args:
        timing: three numbers in [0, 1): the pauses, and how uneven the tempo is.
    """
    before, after, unevenness = timing
    start, end = 0.15 * before, 1 - 0.15 * after
    phase_T = np.clip((time_T - start) / (end - start), 0, 1)
    phase_T += (unevenness - 0.5) * phase_T * (1 - phase_T)
    place_T = phase_T * (NUM_PHASES - 1)
    before_T = np.minimum(place_T.astype(np.intp), NUM_PHASES - 2)
    joints_TJC: Frames = motion_PJC[before_T]
    joints_TJC += (motion_PJC[before_T + 1] - joints_TJC) * (place_T - before_T).astype(np.float32)[:, None, None]
    return joints_TJC


def _let_drift(joints_TJC: Frames, drift_3HC: Frames, time_T: Frames) -> None:
    """Move the hands smoothly from where they ought to be.

    Args:
        drift_3HC: how far each of the two hands is off: all the time, from first to last frame, in between.
    """
    drift_3JC = np.zeros((3, *joints_TJC.shape[1:]), dtype=np.float32)
    for hand, drift_3C in zip(HANDS, np.swapaxes(drift_3HC, 0, 1), strict=True):
        drift_3JC[:, hand] = drift_3C[:, None]
    time_T11 = time_T[:, None, None]
    for weight_T11, drift_JC in zip((1, 2 * time_T11 - 1, 4 * time_T11 * (1 - time_T11)), drift_3JC, strict=True):
        joints_TJC += weight_T11 * drift_JC


def _lose_hands(frames_TKC: Frames, hands: tuple[slice, slice], is_two_handed: bool, rng: np.random.Generator) -> None:
    """Set hands that are not found to 0: an idle one in half of the clips, any for up to a third of some clips."""
    num_frames = len(frames_TKC)
    is_idle_lost, *gaps = rng.random(7).tolist()
    if not is_two_handed and is_idle_lost < 0.5:
        frames_TKC[:, hands[0]] = 0
    for hand, (chance, place, length) in zip(hands, (gaps[:3], gaps[3:]), strict=True):
        if chance < _GAP_FRACTION:
            first = int(place * num_frames)
            frames_TKC[first : first + 1 + int(length * num_frames / 3), hand] = 0
