"""Keypoints of pictures by MediaPipe Holistic, in the layout of the KArSL recordings.

Axes: T frames, K keypoints, C features x, y, z, visibility.
"""

import functools
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ds_trainer.errors import DataError
from ds_trainer.progress import with_bar
from ds_trainer.tasks.sign import mediapipe as facts
from ds_trainer.tasks.sign.extraction.footage import HOW_TO_INSTALL, Footage
from ds_trainer.tasks.sign.readers.pose_file import in_image_units


def keypoints_of(footage: Footage, has_bar: bool = False) -> NDArray[np.float32]:
    """The keypoints float32[T, 184, 4] of one clip; 0 where nothing was found.

    x, y and z are in the units that `readers.pose_file` gives them: fractions of the larger side.

    Args:
        has_bar: show how far it has come.

    Raises:
        DataError: there is no picture, or they differ in size; or MediaPipe is not installed.
    """
    landmarker = _landmarker()
    landmarker.reset()
    frames, sizes = [], []
    for picture in with_bar(footage, footage.num_frames, footage.path.name) if has_bar else footage:
        frames.append(_landmarks_of(landmarker.process(picture)))
        sizes.append(picture.shape[:2])
    if not frames:
        raise DataError(f"{footage.path}: no frame can be read, expected at least one")
    if len(set(sizes)) > 1:
        raise DataError(
            f"{footage.path}: found frames of {len(set(sizes))} sizes, expected one; scale them to one size"
        )
    height, width = sizes[0]
    frames_TKC = np.stack(frames)
    coordinates_TKC, visibility_TK = frames_TKC[..., :3] * (width, height, 1), frames_TKC[..., 3]
    return in_image_units(coordinates_TKC, visibility_TK, width, height)


@functools.cache
def _landmarker() -> Any:
    """MediaPipe Holistic, which follows one person from picture to picture of a clip. Takes 0.5 s to build."""
    try:
        from mediapipe.python.solutions.holistic import Holistic
    except ImportError as error:
        raise DataError(f"MediaPipe 0.10.21 is expected ({error}); {HOW_TO_INSTALL}") from error
    _silence_native_code()
    return Holistic(refine_face_landmarks=True)


def _landmarks_of(found: Any) -> NDArray[np.float64]:
    """The 184 landmarks of one picture, as MediaPipe gives them: fractions of width and height."""
    hands = [_points(hand, range(facts.NUM_HAND)) for hand in (found.right_hand_landmarks, found.left_hand_landmarks)]
    pose = _points(found.pose_landmarks, facts.KARSL_POSE, has_visibility=True)
    return np.concatenate([pose, _points(found.face_landmarks, facts.KARSL_FACE), *hands])


def _points(landmarks: Any, chosen: Sequence[int], has_visibility: bool = False) -> NDArray[np.float64]:
    if landmarks is None:
        return np.zeros((len(chosen), 4))
    points = [landmarks.landmark[number] for number in chosen]
    return np.array([(point.x, point.y, point.z, point.visibility if has_visibility else 1.0) for point in points])


def _silence_native_code() -> None:
    """Let Python alone write to standard error: MediaPipe's threads warn there at each start (0.10.21)."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
