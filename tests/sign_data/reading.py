"""What a reader finds, as tests compare it."""

from pathlib import Path

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.clips import ClipSource, RawClip
from ds_trainer.tasks.sign.readers import find_reader


def read(path: Path) -> tuple[ClipSource, list[RawClip]]:
    """All clips at a path, through the registry; fails at the first damaged file."""
    source = find_reader(path).read(path)
    clips = list(source.clips)
    for clip in clips:
        if isinstance(clip, DataError):
            raise clip
    return source, [clip for clip in clips if isinstance(clip, RawClip)]


def facts(clips: list[RawClip]) -> list[tuple[int, str, str, int]]:
    return [(clip.sign, clip.signer, clip.split, len(clip.frames)) for clip in clips]
