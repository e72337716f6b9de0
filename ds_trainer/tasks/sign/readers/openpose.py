"""A folder of `*_keypoints.json`, one a frame, as OpenPose writes them: one clip.

Each lists the people of a frame, and of each person x, y and confidence of a keypoint after the other.
"""

import json
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ds_trainer.errors import DataError
from ds_trainer.problems import legible, shown
from ds_trainer.tasks.sign.clips import by_number, is_aside
from ds_trainer.tasks.sign.folders import entries_of, is_folder
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.layout_file import load_layout
from ds_trainer.tasks.sign.readers.npz_file import reading
from ds_trainer.text_file import CONFIGS_DIR, read_text

VERSION = 1  # rises with ds_configs/layouts/openpose_*.yaml, too
ENDING = "_keypoints.json"

_FEATURES = ("x", "y", "confidence")
_PARTS = ("pose_keypoints_2d", "face_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d")
_NUMBER = re.compile(r"[0-9]*$")

Person = NDArray[np.float32]
"""[K, 3]: x and y in pixels, confidence."""

Sizes = tuple[int, ...]
"""How many keypoints each of the parts has."""


def is_openpose(path: Path) -> bool:
    """Whether `path` is a folder with such files right in it.

    Raises:
        DataError: it cannot be looked at.
    """
    return is_folder(path) and any(map(_is_frame, entries_of(path)))


def frame_files(folder: Path) -> list[Path]:
    """The files of a clip, by the numbers in their names: 9 stands before 10."""
    return sorted(filter(_is_frame, entries_of(folder)), key=lambda file: by_number(file.name))


def _is_frame(file: Path) -> bool:
    return file.name.endswith(ENDING) and not is_aside(file.name)


def read_openpose(folder: Path) -> NDArray[np.float32]:
    """The frames [T, K, 3] of a clip; a keypoint of confidence 0 is missing, and so are all of a frame with nobody.

    Of several people each frame has the one whose height or width times the sum of confidences is largest.

    Raises:
        DataError: a file is damaged, or of another video or other keypoints than the first; or nobody is ever seen.
    """
    files = frame_files(folder)
    _check_one_video(folder, files)
    people_of = [_people(file) for file in files]
    first = next(((file, sizes) for file, people in zip(files, people_of, strict=True) for sizes, _ in people), None)
    if first is None:
        raise DataError(f"{folder}: found nobody in {len(files)} frames, expected a signer; remove the folder")
    for file, people in zip(files, people_of, strict=True):
        for sizes, _ in people:
            if sizes != first[1]:
                told = "{} of pose, {} of face, {} and {} of hands"
                raise DataError(
                    f"{file}: found keypoints {told.format(*sizes)}, expected {told.format(*first[1])} as in "
                    f"{first[0].name}; extract them with the same flags"
                )
    nobody = np.zeros((sum(first[1]), len(_FEATURES)), dtype=np.float32)
    return np.stack([max((person for _, person in people), key=_weight, default=nobody) for people in people_of])


def layout_of(clips: Iterable[Path]) -> KeypointLayout | None:
    """What the keypoints of clips are that are all such folders: with or without a face known, else of three features.

    None for other clips, and where none can be read, which is told when they are.
    """
    found: KeypointLayout | None = None
    for clip in clips:
        try:
            if not is_openpose(clip):
                return None
            found = found or _layout(read_openpose(clip).shape[1])
        except DataError:
            continue
    return found


def _layout(num_keypoints: int) -> KeypointLayout:
    path = CONFIGS_DIR / "layouts" / f"openpose_{num_keypoints}.yaml"
    everything = {"all": tuple(range(num_keypoints))}
    return load_layout(path) if path.exists() else KeypointLayout(f"generic_{num_keypoints}", _FEATURES, everything)


def _check_one_video(folder: Path, files: Sequence[Path]) -> None:
    videos = [*dict.fromkeys(_NUMBER.sub("", file.name.removesuffix(ENDING)) for file in files)]
    if len(videos) > 1:
        raise DataError(
            f"{folder}: found frames of {legible(videos[0])}... and {legible(videos[1])}..., expected those of one "
            "video; give each a folder of its own"
        )


def _people(file: Path) -> list[tuple[Sizes, Person]]:
    """All people in a frame, with the sizes of their parts."""
    with reading(file, ".json"):
        frame = json.loads(read_text(file))
        people = frame.get("people") if isinstance(frame, dict) else None
        if not isinstance(people, list) or not all(isinstance(person, dict) for person in people):
            raise DataError(f"{file}: found {shown(frame)}, expected people as OpenPose writes them; extract it again")
        return [_person(file, person) for person in people]


def _person(file: Path, person: dict[str, Any]) -> tuple[Sizes, Person]:
    numbers = {part: person.get(part) or [] for part in _PARTS}
    for part, values in numbers.items():
        is_plain = isinstance(values, list) and all(type(value) in (int, float) for value in values)
        if not is_plain or len(values) % 3:
            count = f"{len(values)} values" if isinstance(values, list) else shown(values)
            raise DataError(f"{file}: {part}: found {count}, expected three numbers a keypoint; extract it again")
    if not any(numbers.values()):
        raise DataError(f"{file}: found a person without {', '.join(_PARTS)}; extract it again")
    with np.errstate(over="ignore"):  # what becomes infinite is reported with its clip
        person_KC = np.array([*chain(*numbers.values())], dtype=np.float64).astype(np.float32).reshape(-1, 3)
    is_missing_K = person_KC[:, 2] <= 0  # NaN is none, so that it is seen and reported
    return tuple(len(values) // 3 for values in numbers.values()), np.where(is_missing_K[:, None], 0, person_KC)


def _weight(person_KC: Person) -> float:
    """How large and sure a person is."""
    seen_KC = person_KC[person_KC[:, 2] != 0].astype(np.float64)
    with np.errstate(invalid="ignore"):  # of what is infinite or NaN, and will be reported
        return float(np.ptp(seen_KC[:, :2], axis=0).max() * seen_KC[:, 2].sum()) if len(seen_KC) else 0.0
