"""The embedded default: letters fingerspelled in 16 signed languages, recordings in the package spoken-to-signed.

One recording a letter and language, so the language stands in for the signer; four languages are held out as test.
"""

import importlib.util
from pathlib import Path
from string import ascii_uppercase

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.clips import ClipSource
from ds_trainer.tasks.sign.readers import clip_table, pose_file

FORMAT = "the word default"
VERSION = pose_file.VERSION

_POINTS_ELSEWHERE = "fsl"
"""A language whose rows point to the recordings of another one."""


def find() -> Path:
    """The folder of the recordings.

    Raises:
        DataError: the optional package is not installed.
    """
    spec = importlib.util.find_spec("spoken_to_signed")
    if spec is None or spec.origin is None or importlib.util.find_spec("pose_format") is None:
        raise DataError(
            "--data default: found no package spoken-to-signed, expected it with its recordings; "
            "pip install ds-trainer[demo]"
        )
    return Path(spec.origin).parent / "assets" / "fingerspelling_lexicon"


def recognises(path: Path) -> bool:
    """Never: it is chosen by name; as a path, its folder is read like any other with an index."""
    return False


def files(path: Path) -> list[Path]:
    """All recordings, and their index."""
    return clip_table.files(path)


def read(path: Path) -> ClipSource:
    """The letters of all languages, ordered by language and letter."""
    rows = [row for row in clip_table.read_index(path / "index.csv") if _is_letter(row)]
    rows.sort(key=lambda row: (row["signed_language"], row["words"].upper()))
    languages = sorted({row["signed_language"] for row in rows})
    # Fixed before any result was seen: every fourth code in alphabetical order.
    held_out = languages[3::4]
    clips = (
        clip
        for row in rows
        for clip in clip_table.clips_of(
            path,
            row["path"],
            ascii_uppercase.index(row["words"].upper()) + 1,
            row["signed_language"],
            "test" if row["signed_language"] in held_out else "train",
        )
    )
    return ClipSource(
        name="fingerspelling of spoken-to-signed",
        num_clips=len(rows),
        num_signs=len(ascii_uppercase),
        clips=clips,
        sign_names=ascii_uppercase,
        claims_unseen_signers=True,
    )


def _is_letter(row: clip_table.Row) -> bool:
    word = row["words"].upper()
    return len(word) == 1 and word in ascii_uppercase and row["signed_language"] != _POINTS_ELSEWHERE
