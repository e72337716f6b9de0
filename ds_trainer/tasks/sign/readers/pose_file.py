"""Reads one .pose file of MediaPipe Holistic landmarks into the 184 keypoints of the KArSL layout."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ds_trainer.errors import DataError
from ds_trainer.problems import legible, reason_of
from ds_trainer.tasks.sign import mediapipe
from ds_trainer.text_file import check_regular

VERSION = 1

_POSE_POINTS = tuple(f"{side}_{joint}" for joint in ("SHOULDER", "ELBOW", "WRIST") for side in ("LEFT", "RIGHT"))
_FACE_POINTS = tuple(str(landmark) for landmark in mediapipe.KARSL_FACE)


def read_pose(path: Path) -> NDArray[np.float32]:
    """The frames [T, 184, 4] of the first person in a .pose file.

    x and y are fractions of the larger image side, so that the aspect is kept. z comes from MediaPipe as a fraction of
    the image's width and pose-format leaves it so; it gets the same unit, and the shoulders' depth as its origin,
    because the origin in a file is arbitrary (250 in the recordings of spoken-to-signed).

    Raises:
        DataError: the file is damaged, holds no person, or lacks landmarks; or pose-format is not installed.
    """
    pose = _load(path)
    points = _points(path, pose.header)
    data, confidence = np.ma.getdata(pose.body.data), np.ma.getdata(pose.body.confidence)
    if data.ndim != 4 or data.shape[1] < 1 or data.shape[3] < 3 or confidence.shape != data.shape[:3]:
        raise DataError(f"{path}: found shape {data.shape}, expected [frames, people, points, 3]; extract it again")
    width, height = pose.header.dimensions.width, pose.header.dimensions.height
    if min(width, height) < 1:
        raise DataError(f"{path}: found an image of {width} x {height}, expected its size in pixels; extract it again")
    # Confidences that were interpolated in time reach a little beyond 0 and 1.
    visibility_TK = np.clip(confidence[:, 0, points], 0.0, 1.0)
    coordinates_TKC = data[:, 0, points, :3].astype(np.float64)
    return in_image_units(coordinates_TKC, visibility_TK, width, height)


def in_image_units(
    coordinates_TKC: NDArray[np.float64], visibility_TK: NDArray[np.floating], width: int, height: int
) -> NDArray[np.float32]:
    """Frames [T, K, 4] in fractions of the larger image side, 0 where a keypoint is missing.

    Args:
        coordinates_TKC: x and y in pixels, z as a fraction of the width from any origin; the shoulders first.
        visibility_TK: 0 where a keypoint is missing.
    """
    is_present_TK = ~(visibility_TK <= 0)  # NaN counts as present, so that it is seen and reported
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite or NaN is reported with its clip
        depth_TK = (coordinates_TKC[..., 2] - _shoulder_depth(coordinates_TKC, is_present_TK)) * width
        coordinates_TKC = np.concatenate([coordinates_TKC[..., :2], depth_TK[..., None]], axis=-1)
        frames_TKC = np.concatenate([coordinates_TKC / max(width, height), visibility_TK[..., None]], axis=-1)
        return np.where(is_present_TK[..., None], frames_TKC, 0.0).astype(np.float32)


def _shoulder_depth(coordinates_TKC: NDArray[np.float64], is_present_TK: NDArray[np.bool_]) -> float:
    depths = coordinates_TKC[:, :2, 2][is_present_TK[:, :2]]
    return float(depths.mean()) if depths.size else 0.0


def _load(path: Path) -> Any:
    try:
        from pose_format import Pose
        from pose_format.numpy import NumPyPoseBody
        from pose_format.pose_header import PoseHeader
        from pose_format.utils.reader import BufferReader
    except ImportError as error:
        raise DataError(f"{path}: .pose files need pose-format; pip install ds-trainer[demo]") from error
    try:
        check_regular(path)
        reader = BufferReader(path.read_bytes())
        header = PoseHeader.read(reader)
        body_start = reader.read_offset
        pose = Pose(header, NumPyPoseBody.read(header, reader))
        _check_length(pose, reader, body_start)
        return pose
    except Exception as error:  # a damaged file fails in many ways, each with a type of its own
        raise DataError(
            f"{path}: cannot be read ({reason_of(error)}), expected a whole .pose file; copy it again"
        ) from error


def _check_length(pose: Any, reader: Any, body_start: int) -> None:
    """Refuse a file that is longer or shorter than it says: pose-format reads both, the latter with other frames."""
    if reader.bytes_left():
        raise ValueError(f"{reader.bytes_left()} bytes behind its frames")
    if round(pose.header.version, 3) == 0.1:
        # This version counts frames in 16 bits, which some files exceed; so pose-format looks at the length alone.
        _fps, num_frames = struct.unpack_from("<HH", reader.buffer, body_start)
        if len(pose.body.data) % 2**16 != num_frames:
            raise ValueError(f"{len(pose.body.data)} frames instead of {num_frames}")


def _points(path: Path, header: Any) -> list[int]:
    """Where the 184 keypoints stand among the points of the file, found by name: their order there does not matter."""
    wanted = [("POSE_LANDMARKS", _POSE_POINTS), ("FACE_LANDMARKS", _FACE_POINTS)]
    positions: dict[str, dict[str, int]] = {}
    start = 0
    for component in header.components:
        positions[component.name] = {name: start + number for number, name in enumerate(component.points)}
        start += len(component.points)
    for hand in ("RIGHT_HAND_LANDMARKS", "LEFT_HAND_LANDMARKS"):
        wanted.append((hand, tuple(positions.get(hand, {}))[: mediapipe.NUM_HAND]))
    found = [positions.get(component, {}).get(name) for component, names in wanted for name in names]
    points = [point for point in found if point is not None]
    num_wanted = len(_POSE_POINTS) + len(_FACE_POINTS) + 2 * mediapipe.NUM_HAND
    if len(points) != num_wanted:
        have = ", ".join(f"{legible(component.name)} {len(component.points)}" for component in header.components[:9])
        raise DataError(
            f"{path}: found {have}, of which {len(points)} of the {num_wanted} landmarks of the KArSL layout; "
            "extract it again with MediaPipe Holistic and refined face landmarks (478)"
        )
    return points
