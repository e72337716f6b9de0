"""Where a training of a sweep writes its log, which also says that it goes on."""

from pathlib import Path
from typing import IO

from ds_trainer.cross_validation.folds import Fold
from ds_trainer.errors import WriteError
from ds_trainer.files import lock, make_folder, open_no_link


def locked_log(fold: Fold, sweep_dir: Path) -> IO[bytes] | None:
    """The log of a fold, locked for as long as it is open in any process: its training holds it, too. None: it is.

    On a file system without locks sweeps must not share a folder.

    Raises:
        WriteError: it cannot be opened, or is a link.
    """
    path = fold.dir_in(sweep_dir) / "log.txt"
    make_folder(path.parent)
    try:
        log_file = open_no_link(path, "ab")
    except OSError as error:
        raise WriteError.of(path, error) from error
    if not lock(log_file):
        log_file.close()
        return None
    return log_file
