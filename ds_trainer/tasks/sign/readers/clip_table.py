"""A folder of files of clips, and a csv file with the columns path and sign, and optionally signer and split."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from ds_trainer.errors import DataError
from ds_trainer.problems import legible, reason_of, shown
from ds_trainer.progress import log
from ds_trainer.tasks.sign.clips import ClipSource, RawClip, is_aside, plain_name
from ds_trainer.tasks.sign.readers import clip_file, openpose
from ds_trainer.text_file import check_regular, is_plain

FORMAT = (
    f"a folder of {', '.join(clip_file.SUFFIXES)} files, or folders of OpenPose's *{openpose.ENDING}, with index.csv "
    "(columns path, sign, optionally signer, split)"
)
VERSION = 1 + clip_file.VERSION

SIGN_COLUMNS = ("sign", "words", "label", "gloss")
SIGNER_COLUMNS = (
    "signer", "signer_id", "participant", "participant_id", "person", "person_id", "subject", "subject_id",
)  # fmt: skip
Row = dict[str, str]
_MAX_HEADER = 10_000


def recognises(path: Path) -> bool:
    """Whether `path` has an index, and files of clips."""
    return path.is_dir() and index_of(path) is not None and clip_file.has_clips(path)


def files(path: Path) -> list[Path]:
    """All files of clips, and the index."""
    index_path = index_of(path)
    return [*clip_file.read_below(path), *([index_path] if index_path else [])]


def read(path: Path) -> ClipSource:
    """The clips that the index lists, in its order."""
    index_path = index_of(path)
    assert index_path is not None, "read() follows recognises()"
    rows = read_index(index_path)
    column = next((column for column in SIGN_COLUMNS if rows and column in rows[0]), None)
    signer = next((column for column in SIGNER_COLUMNS if rows and column in rows[0]), "")
    if column is None or "path" not in rows[0]:
        found = ", ".join(map(legible, list(rows[0])[:20])) if rows else "no rows"
        expected = f"the columns path and one of {', '.join(SIGN_COLUMNS)}"
        raise DataError(f"{index_path}: found {found}, expected {expected}; add them, or move a file of another kind")
    _tell_unused(index_path, [name for name in rows[0] if name not in ("path", column, signer, "split")], signer)
    # Numbered in the order in which they first appear.
    signs = [plain_name(row[column]) for row in rows]
    names = list(dict.fromkeys(signs))
    if "" in names:
        number = signs.index("") + 2
        raise DataError(f"{index_path}: line {number}: found no {column}, expected one in each line; add it")
    numbers = {name: number for number, name in enumerate(names, start=1)}
    clips = (
        clip
        for row, sign in zip(rows, signs, strict=True)
        for clip in clips_of(path, row["path"], numbers[sign], row.get(signer, ""), _column(row.get("split", "")))
    )
    layout = openpose.layout_of(path / row["path"] for row in rows)
    return ClipSource(str(path), len(rows), len(names), clips, names, layout=layout)


def _tell_unused(index_path: Path, columns: list[str], signer: str) -> None:
    nobody = "" if signer else f"; none says who signs ({', '.join(SIGNER_COLUMNS)})"
    if columns:
        log.warning(f"note: {index_path}: columns {', '.join(map(legible, columns[:20]))} are not used{nobody}")


def read_index(index_path: Path) -> list[Row]:
    """The rows of an index.

    Raises:
        DataError: it cannot be read as csv, a column stands twice, or a row has too few or too many values.
    """
    try:
        check_regular(index_path)
        with open(index_path, encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, restkey=None, restval=None, strict=True)
            table.fieldnames = columns = [_column(name) for name in table.fieldnames or ()]
            rows = list(table)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{index_path}: cannot be read ({reason_of(error)}), expected csv in UTF-8; save it again"
        ) from error
    twice = sorted({column for column in columns if column and columns.count(column) > 1})
    if twice:
        raise DataError(f"{index_path}: found the columns {shown(twice)} more than once; keep one of each")
    uneven = [number for number, row in enumerate(rows, start=2) if None in row or None in row.values()]
    if uneven:
        raise DataError(
            f"{index_path}: line {uneven[0]}: found more or fewer values than columns, expected one each "
            f"({len(uneven)} such lines); mend them"
        )
    # A stray quotation mark makes one value of several lines.
    strange = [value for row in rows for value in row.values() if not is_plain(value)]
    if strange:
        raise DataError(
            f"{index_path}: found {shown(strange[0])}, expected values of one line; mend its quotation marks"
        )
    return [{column: value for column, value in row.items() if column} for row in rows]


def _column(name: str) -> str:
    """The name of a column, however it is written; that of pandas's row numbers is empty."""
    return name.strip().lower()


def clips_of(folder: Path, name: str, sign: int, signer: str, split: str) -> Iterator[RawClip | DataError]:
    """The clips of a file of an index, or why it cannot be read; `name` is its path within `folder`."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        yield DataError(f"{folder}: found the path {shown(name)} in the index, expected one within the folder; move it")
    elif not os.path.exists(folder / name):  # False also for a name too long to be one
        yield DataError(f"{folder / name}: missing, expected by the index; copy it too or remove its line")
    else:
        yield from clip_file.labelled(folder, Path(name), sign, signer, split)


def index_of(path: Path) -> Path | None:
    """`index.csv`, or the only csv file right in the folder, if it has a column path."""
    tables = sorted(table for table in path.glob("*.csv") if not is_aside(table.name))
    if path / "index.csv" in tables:
        return path / "index.csv"
    return tables[0] if len(tables) == 1 and _has_paths(tables[0]) else None


def _has_paths(table: Path) -> bool:
    try:
        check_regular(table)
        with open(table, encoding="utf-8-sig", newline="") as file:
            return "path" in map(_column, next(csv.reader([file.readline(_MAX_HEADER)]), []))
    except (OSError, ValueError, csv.Error):
        return False
