"""The index of a folder of footage, which becomes that of its keypoints."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from ds_trainer.errors import DataError
from ds_trainer.files import make_folder, write_csv
from ds_trainer.problems import legible, shortened
from ds_trainer.tasks.sign.extraction.work import Piece, name_of
from ds_trainer.tasks.sign.readers.clip_table import Row, index_of, read_index


def rows_of(footage: Path, pieces: Iterable[Piece]) -> list[Row]:
    """The rows of the index of a folder of footage, with the paths of keypoints to come; none where it has no index.

    A path may lack the ending of a video.

    Raises:
        DataError: the index is damaged, or names what is no footage.
    """
    path = index_of(footage) if footage.is_dir() else None
    if path is None:
        return []
    outs = {clip: piece.out for piece in pieces for clip in piece.clips.values()}
    outs |= {clip.with_name(name_of(clip)): out for clip, out in outs.items()}
    rows = read_index(path)
    if rows and "path" not in rows[0]:
        raise DataError(f"{path}: found no column path, expected one; add it, or move the file elsewhere")
    problems = [
        f"{path}: line {number}: found {legible(row['path'])}, expected the path of footage within {footage}; mend or "
        "remove the line"
        for number, row in enumerate(rows, start=2)
        if footage / row["path"] not in outs
    ]
    if problems:
        raise DataError(shortened(problems))
    return [{**row, "path": str(outs[footage / row["path"]])} for row in rows]


def write_index(rows: Sequence[Row], out_dir: Path) -> None:
    """Write an index of those keypoints that are there.

    Raises:
        WriteError: it cannot be written.
    """
    made = [row for row in rows if Path(row["path"]).exists()]
    relative = [{**row, "path": str(Path(row["path"]).relative_to(out_dir))} for row in made]
    make_folder(out_dir)
    write_csv(out_dir / "index.csv", [[*rows[0]], *([*row.values()] for row in relative)])
