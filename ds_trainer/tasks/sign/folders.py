"""What lies in folders of data: links are followed, and what cannot be looked into is told, not left out in silence."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ds_trainer.errors import DataError, looking_at
from ds_trainer.paths import is_dir
from ds_trainer.problems import shortened
from ds_trainer.tasks.sign.clips import is_aside


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder, or a link to one.

    Raises:
        DataError: it cannot be looked at, or is a link to nothing that may have stood for a folder.
    """
    with looking_at(path, DataError):
        if not path.suffix and path.is_symlink():
            path.stat()
        return is_dir(path)


def entries_of(folder: Path) -> list[Path]:
    """What lies right in a folder, in the order of names.

    Raises:
        DataError: it cannot be looked into.
    """
    with looking_at(folder, DataError):
        return [folder / name for name in sorted(os.listdir(folder))]


def found_below(folder: Path, takes: Callable[[Path], bool]) -> Iterator[Path]:
    """What is taken of all that lies in a folder and its folders, sorted; what is put aside is left out.

    A folder that is taken is not looked into, nor is one that a link within it leads to again.

    Raises:
        DataError: when all else is found, with each folder that cannot be looked into.
    """
    problems: list[str] = []
    yield from _found_below(folder, takes, (), problems)
    if problems:
        raise DataError(shortened(problems))


def _found_below(
    folder: Path, takes: Callable[[Path], bool], above: tuple[os.stat_result, ...], problems: list[str]
) -> Iterator[Path]:
    try:
        with looking_at(folder, DataError):
            status = folder.stat()
        is_ring = any(os.path.samestat(status, other) for other in above)
        entries = [] if is_ring else [entry for entry in entries_of(folder) if not is_aside(entry.name)]
    except DataError as error:
        problems += error.problems
        return
    for entry in entries:
        try:
            is_taken = takes(entry)
            is_entered = not is_taken and is_folder(entry)
        except DataError as error:
            problems += error.problems
            continue
        if is_taken:
            yield entry
        elif is_entered:
            yield from _found_below(entry, takes, (*above, status), problems)
