"""Pictures of a clip, one after the other: of a video file, or of a folder with an image a frame."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.clips import by_number, is_aside, typed
from ds_trainer.tasks.sign.folders import entries_of, found_below, is_folder

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")

Picture = NDArray[np.uint8]
"""uint8[height, width, 3], red first."""


def is_footage(path: Path) -> bool:
    """Whether `path` is a video file, or a folder with images right in it.

    Raises:
        DataError: it cannot be looked at.
    """
    return any(map(_is_image, entries_of(path))) if is_folder(path) else path.suffix.lower() in VIDEO_SUFFIXES


def footage_below(path: Path) -> Iterator[Path]:
    """The videos and folders of images in a folder and its folders, sorted, but what is put aside.

    Raises:
        DataError: when all else is found, with each folder that cannot be looked into.
    """
    return found_below(path, is_footage) if is_folder(path) else iter(())


def extraction_of(path: Path) -> str:
    """The command that finds keypoints in footage, to be typed into a shell."""
    return f"python launch/extract_keypoints.py {typed(path)} --out keypoints"


def images_in(folder: Path) -> list[Path]:
    """The images right in a folder, by the numbers in their names: 9.jpg stands before 10.jpg."""
    return sorted(filter(_is_image, entries_of(folder)), key=lambda file: by_number(file.name))


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES and not is_aside(file.name)


class Footage:
    """The pictures of one clip.

    Attributes:
        num_frames: as far as is known before they are read.
        problems: what could not be read so far; such frames are left out.
    """

    def __init__(self, path: Path):
        """Open a video file or a folder of images.

        Raises:
            DataError: it cannot be opened, or opencv is not installed.
        """
        self.path = path
        self.problems: list[str] = []
        self._opencv = opencv(path)
        self._files = images_in(path) if path.is_dir() else []
        self._video: Any = None
        if not path.is_dir():
            self._video = self._opencv.VideoCapture(str(path))
            if not self._video.isOpened():
                problem = "cannot be opened as a video; look whether it plays" if path.exists() else "does not exist"
                raise DataError(f"{path}: {problem}")
        self.num_frames = len(self._files)
        if self._video is not None:
            self.num_frames = max(0, int(self._video.get(self._opencv.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[Picture]:
        pictures = self._of_files() if self._video is None else self._of_video()
        for picture in pictures:
            yield self._opencv.cvtColor(picture, self._opencv.COLOR_BGR2RGB)

    def _of_files(self) -> Iterator[Picture]:
        unreadable = []
        for file in self._files:
            picture = self._opencv.imread(str(file))
            if picture is None:
                unreadable.append(file.name)
            else:
                yield picture
        if unreadable:
            found = f"{len(unreadable)} of {len(self._files)} frames cannot be read"
            self.problems.append(f"{self.path}: {found}, {unreadable[0]} first; they are left out")

    def _of_video(self) -> Iterator[Picture]:
        num_read = 0
        while True:
            is_read, picture = self._video.read()
            if not is_read:
                break
            num_read += 1
            yield picture
        self._video.release()
        if num_read < self.num_frames:
            self.problems.append(f"{self.path}: ends after {num_read} of {self.num_frames} frames; copy it again")


def opencv(path: Path) -> Any:
    """The package cv2, which comes with MediaPipe.

    Raises:
        DataError: it is not installed; `path` cannot be read without it.
    """
    try:
        import cv2
    except ImportError as error:
        raise DataError(f"{path}: footage needs MediaPipe ({error}); {HOW_TO_INSTALL}") from error
    cv2.setNumThreads(1)
    return cv2


HOW_TO_INSTALL = (
    "make setup-video, and run this with .venv-video/bin/python (it needs numpy below 2, and Python 3.11 or 3.12)"
)
