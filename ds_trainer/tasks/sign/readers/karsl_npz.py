"""KArSL keypoints: folders `{signer}-{split}` with files `{sign:04}.npz` = {video: float[T, K, C]}."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ds_trainer.errors import DataError
from ds_trainer.problems import shown
from ds_trainer.tasks.sign.clips import SPLITS, ClipSource, RawClip
from ds_trainer.tasks.sign.folders import entries_of, is_folder
from ds_trainer.tasks.sign.readers.npz_file import load_arrays
from ds_trainer.text_file import is_plain

FORMAT = "a folder of {signer}-{split}/{sign:04}.npz (KArSL keypoints)"
VERSION = 1

NUM_SIGNS = 502
_SIGN_FILE = re.compile(r"[0-9]{4}\.npz")


def recognises(path: Path) -> bool:
    """Whether `path` has folders that are named and filled like those of KArSL."""
    return path.is_dir() and bool(files(path))


def files(path: Path) -> list[Path]:
    """The files of all signers, splits and signs."""
    return _files_in(folder for folder in entries_of(path) if _split_of(folder))


def is_sign_file(file: Path) -> bool:
    """Whether a file and its folder are called like those of KArSL."""
    return bool(_SIGN_FILE.fullmatch(file.name) and _split_of(file.parent))


def read(path: Path) -> ClipSource:
    """The clips of all files, in the order of their names.

    Raises:
        DataError: a folder looks like one of these and names another split: its clips would be left out in silence.
    """
    found = files(path)
    folders = {file.parent.name for file in _files_in(folder for folder in entries_of(path) if "-" in folder.name)}
    strange = sorted(folders - {file.parent.name for file in found if is_plain(file.parent.name)})
    if strange:
        raise DataError(
            [
                f"{path}: found the folder {shown(folder)}, expected {{signer}}-train, -val or -test, in UTF-8; "
                "rename it, or move it elsewhere"
                for folder in strange
            ]
        )
    last_sign = max(int(file.stem) for file in found)
    return ClipSource(
        name=str(path),
        num_clips=len(found),
        num_signs=min(last_sign, NUM_SIGNS),
        clips=_clips(found),
        # The same signers stand in train and test.
        claims_unseen_signers=False,
    )


def _clips(found: list[Path]) -> Iterator[RawClip | DataError]:
    for file in found:
        signer = file.parent.name.rpartition("-")[0]
        try:
            videos = load_arrays(file)
            if not videos:
                raise DataError(f"{file}: found no videos, expected at least one; extract it again, or remove the file")
        except DataError as error:
            yield error
            continue
        for video, frames in videos.items():
            clip_id = f"{file.parent.name}/{file.stem}/{video}"
            yield RawClip(frames, int(file.stem), signer, _split_of(file.parent), clip_id, str(file))


def _files_in(folders: Iterable[Path]) -> list[Path]:
    """The files of signs right in those of the paths that are folders."""
    of_folders = (entries_of(folder) for folder in folders if is_folder(folder))
    return [file for files_in_it in of_folders for file in files_in_it if _SIGN_FILE.fullmatch(file.name)]


def _split_of(folder: Path) -> str:
    """The split that a folder names; "" when it names none."""
    _, dash, split = folder.name.rpartition("-")
    return split if dash and split in SPLITS else ""
