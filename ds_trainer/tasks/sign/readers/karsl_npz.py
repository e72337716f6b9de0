"""KArSL keypoints: folders `{signer}-{split}` with files `{sign:04}.npz` = {video: float[T, K, C]}."""

import re
from collections.abc import Iterator
from pathlib import Path

from ds_trainer.errors import DataError
from ds_trainer.problems import shown
from ds_trainer.tasks.sign.clips import SPLITS, ClipSource, RawClip
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
    return sorted(file for file in path.glob("*-*/*.npz") if _SIGN_FILE.fullmatch(file.name) and _split_of(file))


def read(path: Path) -> ClipSource:
    """The clips of all files, in the order of their names.

    Raises:
        DataError: a folder looks like one of these and names another split: its clips would be left out in silence.
    """
    found = files(path)
    folders = {file.parent.name for file in path.glob("*-*/*.npz") if _SIGN_FILE.fullmatch(file.name)}
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
            yield RawClip(frames, int(file.stem), signer, _split_of(file), clip_id, str(file))


def _split_of(file: Path) -> str:
    """The split that the folder of a file names; "" when it names none."""
    split = file.parent.name.rpartition("-")[2]
    return split if split in SPLITS else ""
