"""What there is to extract, in pieces that are done whole or not at all, so that a run that was ended goes on."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.clips import SPLITS
from ds_trainer.tasks.sign.extraction.footage import footage_below, is_footage
from ds_trainer.tasks.sign.folders import entries_of, is_folder

_SIGN = re.compile("[0-9]{4}")


@dataclass(frozen=True)
class Piece:
    """The clips that one file of keypoints is made of.

    Args:
        clips: name in the file -> a video, or a folder of images.
        out: the `.npz` to be written.
    """

    clips: dict[str, Path]
    out: Path


def pieces_of(footage: Path, out_dir: Path) -> list[Piece]:
    """The pieces of a video, of KArSL's folders, or of any folder of footage.

    KArSL's `{signer}/{split}/{sign}/{video}` becomes `{signer}-{split}/{sign}.npz`; otherwise each clip becomes a file
    of its own, in folders as before. `--data` reads both.

    Raises:
        DataError: there is no footage, or two clips would have one name.
    """
    if is_footage(footage):
        return [Piece({name_of(footage): footage}, out_dir / f"{name_of(footage)}.npz")]
    signers = entries_of(footage) if is_folder(footage) else []
    splits = [signer / split for split in SPLITS[1:] for signer in signers if is_folder(signer / split)]
    signs = [sign for split in splits for sign in entries_of(split) if _SIGN.fullmatch(sign.name)]
    pieces = []
    for sign in signs:
        named = _by_name(filter(is_footage, entries_of(sign)))
        clips = {path.name: clip for path, clip in named.items()}
        if clips:
            split = sign.parent
            pieces.append(Piece(clips, out_dir / f"{split.parent.name}-{split.name}" / f"{sign.name}.npz"))
    if not signs:
        pieces = [
            Piece({path.name: clip}, out_dir / path.parent.relative_to(footage) / f"{path.name}.npz")
            for path, clip in _by_name(footage_below(footage)).items()
        ]
    if not pieces:
        raise DataError(f"{footage}: found no video and no folder of images, expected at least one")
    return pieces


def name_of(clip: Path) -> str:
    """What a clip is called, without the ending of a video: the name of a folder may hold dots, and has none."""
    return clip.name if clip.is_dir() else clip.stem


def _by_name(clips: Iterable[Path]) -> dict[Path, Path]:
    """Clips by their paths without the ending of a video."""
    named: dict[Path, Path] = {}
    for clip in clips:
        other = named.setdefault(clip.with_name(name_of(clip)), clip)
        if other != clip:
            raise DataError(f"{clip}: found {other.name} beside it, expected one clip of that name; rename one of them")
    return named
