"""The keypoints of MediaPipe Holistic, and in which order the parts of the body stand in a recording.

Of the same keypoints there are recordings in any order: MediaPipe's own tools write pose, face, left hand, right hand;
those of the Google contest of isolated signs face, left hand, pose, right hand. Which it is can be seen: in the right
order the bones of the pose are short, and a hand begins where the arm ends.

Axes: N frames, K keypoints, D coordinates.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ds_trainer.tasks.sign import mediapipe
from ds_trainer.tasks.sign.layout import LOWER_BODY, KeypointLayout

NUM_FACE_OF = {
    mediapipe.NUM_POSE + 2 * mediapipe.NUM_HAND + num_face: num_face
    for num_face in (0, mediapipe.NUM_FACE, mediapipe.NUM_FACE_WITH_IRISES)
}
"""Number of keypoints -> how many of them are of the face."""

_ORDER = ("pose", "face", "left_hand", "right_hand")
_WRISTS = {"left_hand": 15, "right_hand": 16}  # of the pose
_NAME = "holistic_"
_LIKE_A_BODY = 0.5
_LEAST_KNOWN = 0.05

Points = NDArray[np.floating]


def holistic(features: tuple[str, ...], num_face: int, order: Sequence[str] = ()) -> KeypointLayout:
    """The layout of 33 keypoints of the pose, hips and legs the last, `num_face` of the face and 21 of each hand.

    Args:
        order: of those of these parts that are in the recording; empty: as they are named here.
    """
    lengths = {"pose": mediapipe.NUM_POSE, "face": num_face, **dict.fromkeys(_WRISTS, mediapipe.NUM_HAND)}
    recorded = order or [part for part in _ORDER if lengths[part]]
    ends = dict(zip(recorded, itertools.accumulate(lengths[part] for part in recorded), strict=True))
    pose, face, left_hand, right_hand = (range(ends.get(part, 0) - lengths[part], ends.get(part, 0)) for part in _ORDER)
    mirror, parents = np.arange(sum(lengths.values())), np.arange(sum(lengths.values()))
    mirror[pose], mirror[face] = placed(mediapipe.POSE_MIRROR, pose), placed(mediapipe.FACE_MIRROR[:num_face], face)
    mirror[left_hand], mirror[right_hand] = right_hand, left_hand
    parents[pose] = placed(mediapipe.POSE_PARENTS, pose)
    for hand in (left_hand, right_hand):
        parents[hand] = placed(mediapipe.HAND_PARENTS, hand)
    body = {"pose": pose[: mediapipe.NUM_UPPER_POSE], LOWER_BODY: pose[mediapipe.NUM_UPPER_POSE :], "face": face}
    body |= {"left_hand": left_hand, "right_hand": right_hand}
    shoulders = (pose[mediapipe.LEFT_SHOULDER], pose[mediapipe.RIGHT_SHOULDER])
    return KeypointLayout(
        name="_".join([f"{_NAME}{len(mirror)}", *order]),
        features=features,
        parts={part: tuple(keypoints) for part, keypoints in body.items() if keypoints},
        mirror=tuple(mirror.tolist()),
        centre=shoulders,
        scale=shoulders,
        part_roots={"left_hand": left_hand[0], "right_hand": right_hand[0]},
        parents=tuple(parents.tolist()),
    )


def placed(numbers: Sequence[int], keypoints: Sequence[int]) -> list[int]:
    """Numbers within a part, such as the parents of its keypoints, as they are called among all keypoints."""
    return [keypoints[number] for number in numbers]


def in_order(usual: KeypointLayout, frames_NKD: Points) -> KeypointLayout:
    """The holistic layout whose parts are in the order of the frames.

    Args:
        usual: taken unless the keypoints are like a body in another order alone.
        frames_NKD: some frames, of whose keypoints x and y are looked at; both are 0 where one is missing.
    """
    if misfit(frames_NKD, usual) < _LIKE_A_BODY:
        return usual
    orders = itertools.permutations(part for part in _ORDER if part in usual.parts)
    layouts = [holistic(usual.features, NUM_FACE_OF[usual.num_keypoints], order) for order in orders]
    least, place = min((misfit(frames_NKD, layout), place) for place, layout in enumerate(layouts))
    return layouts[place] if least < _LIKE_A_BODY else usual


def is_holistic(layout: KeypointLayout) -> bool:
    """Whether it is one that this module made: a file may call another one so."""
    num_face = NUM_FACE_OF.get(layout.num_keypoints)
    if num_face is None or not layout.name.startswith(_NAME):
        return False
    is_whole = layout.parts.keys() == holistic(layout.features, num_face).parts.keys()
    return is_whole and layout.parts == holistic(layout.features, num_face, order_of(layout)).parts


def order_of(layout: KeypointLayout) -> list[str]:
    """The parts of a holistic layout in the order of the recording."""
    return sorted((part for part in layout.parts if part in _ORDER), key=lambda part: layout.parts[part][0])


def misfit(frames_NKD: Points, layout: KeypointLayout) -> float:
    """How little the keypoints are like a body, if they are what a holistic layout says.

    The mean length of the pose's bones, and the mean distance of hands from the wrists that they belong to, over the
    mean distance of the pose's keypoints from their middle; and how often only some keypoints of a hand or of the face
    are missing. Below 0.5 in 597 of 600 recordings of fingerspelling (spoken-to-signed 0.4.0; half of them up to
    0.35), above 0.54 in each wrong order of a language's recordings together. Infinite where no pose is seen.
    """
    in_plane_NKD = frames_NKD[..., :2]
    is_there_NK = (in_plane_NKD != 0).any(-1)
    points_NKD = np.where(is_there_NK[..., None], in_plane_NKD, np.nan)
    pose = [*layout.parts["pose"], *layout.parts[LOWER_BODY]]
    bones = [(keypoint, parent) for keypoint, parent in layout.bones if keypoint in pose]
    wrists = [(root, pose[_WRISTS[hand]]) for hand, root in layout.part_roots.items()]
    middle_N1D = np.nan_to_num(points_NKD[:, pose]).sum(1, keepdims=True)
    middle_N1D /= is_there_NK[:, pose].sum(1)[:, None, None].clip(min=1)
    size = _mean_length(points_NKD[:, pose] - middle_N1D)
    length, gap = (
        _mean_length(points_NKD[:, one] - points_NKD[:, other]) for one, other in map(np.transpose, (bones, wrists))
    )
    if not size or length is None:
        return np.inf
    return (length + (size if gap is None else gap)) / size + _torn_fraction(is_there_NK, layout)


def _torn_fraction(is_there_NK: NDArray[np.bool_], layout: KeypointLayout) -> float:
    """How often a hand or the face is there in part: MediaPipe finds all of its keypoints or none."""
    wholes = [list(keypoints) for part, keypoints in layout.parts.items() if part not in ("pose", LOWER_BODY)]
    torn = [is_there_NK[:, whole].any(1) & ~is_there_NK[:, whole].all(1) for whole in wholes]
    return float(np.mean(torn))


def _mean_length(vectors_NPD: Points) -> float | None:
    """Over those that are known; None: too few are."""
    lengths_NP = np.linalg.norm(vectors_NPD, axis=-1)
    is_known_NP = np.isfinite(lengths_NP)
    return float(lengths_NP[is_known_NP].mean()) if is_known_NP.mean() > _LEAST_KNOWN else None
