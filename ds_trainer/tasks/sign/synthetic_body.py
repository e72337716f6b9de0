"""The body that synthetic clips show, and how a sign moves it: whatever costs time is computed once a sign.

The unit is the distance between the shoulders and the origin lies between them; x grows to the signer's left, y
downwards, z away from the camera, as MediaPipe has it.

A keypoint hangs on a joint at a fixed offset, so the joints are all that moves: the torso, the head, two elbows, and
the 21 of each hand, the first of which is the wrist.

Axes: P phases of a sign, J joints, K keypoints, F fingers, C features: x, y, z, visibility.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ds_trainer.tasks.sign import mediapipe

Floats = NDArray[np.float64]

TORSO, HEAD = 0, 1
ELBOWS = (2, 3)
HANDS = (slice(4, 25), slice(25, 46))
"""Of the left and of the right side, as everything that has two."""
NUM_JOINTS = 46
NUM_PHASES = 64

# Random numbers of their own, so that a change to one leaves the others as they are; synthetic.py goes on from 4.
_SIGNS, _SHAPES, _PLACES = 1, 2, 3

_SIDES = (1.0, -1.0)
_NUM_HARMONICS = 3
_ARM_LENGTH = 1.5
_RAISING = 0.15
"""Fraction of a sign in which the hands come up, and again in which they go down."""
_REST_CURL, _REST_TURN = 0.3, np.array([2.8, 0.0])
_NUM_SHAPES, _NUM_PLACES = 12, 10
"""Signs share shapes of the hand and places, as those of a language do: such pairs differ in the path only."""

# Thumb, index, middle, ring, little finger: where each begins, seen from the wrist, and its three links.
_FINGER_ANGLES_F = np.radians([50.0, 16.0, 0.0, -14.0, -28.0])
_FINGER_ROOTS_F = np.array([0.10, 0.24, 0.24, 0.23, 0.21])
_LINKS = np.array([0.11, 0.07, 0.05])

# Of the pose without arms and hands: the nose, then what stands on the left, by the number in MediaPipe.
_NOSE = (0.0, -0.65, -0.45)
_LEFT_POSE = {
    1: (0.05, -0.75, -0.40), 2: (0.08, -0.75, -0.40), 3: (0.11, -0.75, -0.38), 7: (0.21, -0.68, 0.0),
    9: (0.06, -0.53, -0.38), 11: (0.5, 0.0, 0.0), 23: (0.33, 1.40, 0.0), 25: (0.34, 2.40, -0.05),
    27: (0.34, 3.35, 0.10), 29: (0.34, 3.45, 0.12), 31: (0.38, 3.55, -0.15),
}  # fmt: skip
# Which of a hand's joints the pose shows too: wrist, little finger, index finger, thumb.
_LEFT_POSE_OF_HAND = {15: 0, 17: 17, 19: 5, 21: 2}


class SignMotion(NamedTuple):
    """A sign as everybody would like to make it, from hands down to hands down.

    Args:
        joints_PJC: where the joints are in each phase, and 0 for the visibility.
        is_two_handed: whether the left hand signs too; the right one always does.
    """

    joints_PJC: NDArray[np.float32]
    is_two_handed: bool


@lru_cache(maxsize=1024)
def sign_motion(seed: int, sign: int) -> SignMotion:
    """The motion of a sign: a few harmonics for each path, finger and turn of a hand, drawn anew for each sign."""
    rng = np.random.default_rng([seed, _SIGNS, sign])
    is_two_handed = bool(rng.random() < 0.5)
    joints_PJC = np.zeros((NUM_PHASES, NUM_JOINTS, 4))
    joints_PJC[:, HEAD, :3] = _waves(rng, 3, 0.02)
    for side, elbow, hand in zip(_SIDES, ELBOWS, HANDS, strict=True):
        shape = np.random.default_rng([seed, _SHAPES, int(rng.integers(_NUM_SHAPES))])
        place = np.random.default_rng([seed, _PLACES, int(rng.integers(_NUM_PLACES))])
        raised_P1 = _raised() * (is_two_handed or side < 0)
        aims_P3 = place.normal((0.3, 0.35, -0.6), (0.25, 0.3, 0.1)) * (side, 1, 1) + _waves(rng, 3, 0.12)
        rest = np.array([side * 0.55, 1.35, -0.1])
        wrist_P3 = _within_reach(rest + raised_P1 * (aims_P3 - rest), side)
        curl_PF = _REST_CURL + raised_P1 * (np.clip(shape.random(5) + _waves(rng, 5, 0.1), 0, 1) - _REST_CURL)
        turn_P2 = _REST_TURN + raised_P1 * (shape.normal(0, (0.5, 0.8)) + _waves(rng, 2, 0.15) - _REST_TURN)
        joints_PJC[:, elbow, :3] = _elbow(wrist_P3, side)
        joints_PJC[:, hand, :3] = wrist_P3[:, None] + _hand(curl_PF, turn_P2, side)
    return SignMotion(joints_PJC.astype(np.float32), is_two_handed)


def _raised() -> Floats:
    """How far hands have come up, 0..1: [P, 1]."""
    phase_P1 = np.linspace(0.0, 1.0, NUM_PHASES)[:, None]
    part_P1: Floats = np.clip(np.minimum(phase_P1, 1 - phase_P1) / _RAISING, 0.0, 1.0)
    return part_P1 * part_P1 * (3 - 2 * part_P1)


def _waves(rng: np.random.Generator, num: int, size: float) -> Floats:
    """Smooth periodic curves of a few harmonics, the higher the smaller: [P, num]."""
    harmonic_H = np.arange(1, _NUM_HARMONICS + 1)
    angle_PH = 2 * np.pi * harmonic_H * np.linspace(0.0, 1.0, NUM_PHASES)[:, None]
    weights = rng.normal(size=(2, _NUM_HARMONICS, num)) * (size / harmonic_H)[:, None]
    curves_PN: Floats = np.cos(angle_PH) @ weights[0] + np.sin(angle_PH) @ weights[1]
    return curves_PN


def _within_reach(wrist_P3: Floats, side: float) -> Floats:
    shoulder = np.array([side * 0.5, 0.0, 0.0])
    arm_P3 = wrist_P3 - shoulder
    length_P1 = np.linalg.norm(arm_P3, axis=1, keepdims=True)
    reached_P3: Floats = shoulder + arm_P3 * np.minimum(1.0, 0.97 * _ARM_LENGTH / length_P1)
    return reached_P3


def _elbow(wrist_P3: Floats, side: float) -> Floats:
    """Upper arm and forearm are equally long, and the elbow points outwards and down: [P, 3]."""
    half_P3 = (wrist_P3 - (side * 0.5, 0.0, 0.0)) / 2
    half_length_P1 = np.linalg.norm(half_P3, axis=1, keepdims=True)
    axis_P3 = half_P3 / np.maximum(half_length_P1, 1e-6)
    outwards = np.array([side * 0.6, 0.7, 0.2])
    bend_P3 = outwards - axis_P3 * (axis_P3 @ outwards)[:, None]
    bend_P3 /= np.maximum(np.linalg.norm(bend_P3, axis=1, keepdims=True), 1e-6)
    height_P1 = np.sqrt(np.maximum((_ARM_LENGTH / 2) ** 2 - half_length_P1**2, 0.0))
    elbow_P3: Floats = wrist_P3 - half_P3 + bend_P3 * height_P1
    return elbow_P3


def _hand(curl_PF: Floats, turn_P2: Floats, side: float) -> Floats:
    """The 21 joints of a hand as seen from its wrist: [P, 21, 3].

    Args:
        curl_PF: 0 for a straight finger .. 1 for one that is bent into the fist.
        turn_P2: angles in the plane of the image, 0 for fingers that point up, and about the length of the hand.
    """
    turn_P1, roll_P1 = np.split(turn_P2, 2, axis=1)
    bend_PF3 = np.radians(75.0) * curl_PF[..., None] * np.arange(1, 4)
    along_PF3, down_PF3 = (np.cumsum(_LINKS * f(bend_PF3), axis=-1) for f in (np.cos, np.sin))
    root_PF1 = np.broadcast_to(_FINGER_ROOTS_F[:, None], (NUM_PHASES, 5, 1))
    radius_PF4 = np.concatenate([root_PF1, root_PF1 + along_PF3], axis=-1)
    depth = -np.concatenate([np.zeros_like(root_PF1), down_PF3], axis=-1).reshape(NUM_PHASES, 20)
    ahead = (radius_PF4 * np.cos(_FINGER_ANGLES_F)[:, None]).reshape(NUM_PHASES, 20)
    aside = (radius_PF4 * np.sin(_FINGER_ANGLES_F)[:, None]).reshape(NUM_PHASES, 20)
    rolled = aside * np.cos(roll_P1) - depth * np.sin(roll_P1)
    joints_P21x3 = np.zeros((NUM_PHASES, 21, 3))
    joints_P21x3[:, 1:, 0] = -side * (rolled * np.cos(turn_P1) + ahead * np.sin(turn_P1))
    joints_P21x3[:, 1:, 1] = rolled * np.sin(turn_P1) - ahead * np.cos(turn_P1)
    joints_P21x3[:, 1:, 2] = aside * np.sin(roll_P1) + depth * np.cos(roll_P1)
    return joints_P21x3


def keypoints_of(layout_name: str) -> tuple[NDArray[np.intp], Floats]:
    """For each keypoint of a layout the joint on which it hangs, [K], and its offset from there, [K, 3]."""
    pose_joints, pose_offsets = _pose()
    pose, face, hands = _SELECTED[layout_name]
    joints = [pose_joints[k] for k in pose] + [HEAD] * len(face)
    for hand in hands:
        joints += range(hand.start, hand.stop)
    offsets = np.zeros((len(joints), 3))
    offsets[: len(pose)] = pose_offsets[list(pose)]
    offsets[len(pose) : len(pose) + len(face)] = _face()[list(face)]
    return np.array(joints, dtype=np.intp), offsets


def _pose() -> tuple[list[int], Floats]:
    """Joints and offsets of the 33 keypoints of the pose."""
    joints, offsets = [TORSO] * mediapipe.NUM_POSE, np.zeros((mediapipe.NUM_POSE, 3))
    offsets[0] = _NOSE
    for left, place in _LEFT_POSE.items():
        offsets[left] = place
        offsets[mediapipe.POSE_MIRROR[left]] = place * np.array([-1.0, 1.0, 1.0])
    joints[:11] = [HEAD] * 11
    joints[13:15] = ELBOWS
    for left, of_hand in _LEFT_POSE_OF_HAND.items():
        joints[left], joints[left + 1] = (hand.start + of_hand for hand in HANDS)
    return joints, offsets


def _face() -> Floats:
    """Points all over the front of a head, each with its mirror image where MediaPipe has it; nobody's face."""
    rng = np.random.default_rng(mediapipe.NUM_FACE_WITH_IRISES)
    everything = np.arange(mediapipe.NUM_FACE_WITH_IRISES)
    mirror = np.array(mediapipe.FACE_MIRROR)
    radius, angle = np.sqrt(rng.random(len(mirror))), np.pi * (rng.random(len(mirror)) - 0.5)
    place = np.stack([radius * np.cos(angle), radius * np.sin(angle), -np.sqrt(1 - radius**2)], axis=1)
    right = np.minimum(everything, mirror)  # in each pair the right one has the lower number
    face: Floats = place[right] * (0.2, 0.32, 0.4) + (0.0, -0.68, 0.0)
    face[:, 0] *= np.sign(everything - mirror)
    return face


_SELECTED: dict[str, tuple[Sequence[int], Sequence[int], Sequence[slice]]] = {
    "karsl": (mediapipe.KARSL_POSE, mediapipe.KARSL_FACE, HANDS[::-1]),
    "holistic_75": (range(mediapipe.NUM_POSE), (), HANDS),
    "holistic_543": (range(mediapipe.NUM_POSE), range(mediapipe.NUM_FACE), HANDS),
}
"""Which keypoints of the pose and of the face a layout has, and the order of its hands."""
