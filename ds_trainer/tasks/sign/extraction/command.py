"""The command line of launch/extract_keypoints.py: footage in, keypoints out, on all cores."""

import argparse
import multiprocessing
import signal
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import IO

import joblib
import numpy as np
from numpy.typing import NDArray

from ds_trainer.command import EXIT_INTERRUPTED, command
from ds_trainer.errors import EXIT_USER_ERROR, DataError, WriteError, looking_at
from ds_trainer.files import make_folder, write_atomically
from ds_trainer.paths import exists
from ds_trainer.progress import log, tell_problems, with_bar
from ds_trainer.tasks.sign.extraction.footage import Footage
from ds_trainer.tasks.sign.extraction.holistic import keypoints_of
from ds_trainer.tasks.sign.extraction.index import rows_of, write_index
from ds_trainer.tasks.sign.extraction.work import Piece, pieces_of
from ds_trainer.worker_signals import end_with_the_parent


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Extract; return the exit status: 0, or 2 if a clip has no keypoints, which the log names."""
    parser = argparse.ArgumentParser(
        prog="launch/extract_keypoints.py",
        description="Turn videos, or folders with an image a frame, into keypoints that --data and launch/predict.py "
        "read. What lies in --out already is not made again. An index.csv is taken along.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "footage",
        type=Path,
        help="a video; a folder of footage such as {sign}/{video}, {signer}/{sign}/{video} or with an index.csv "
        "(columns path, sign, signer); or KArSL's {signer}/{split}/{sign}/{video}",
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder for the .npz files")
    parser.add_argument("--jobs", type=int, default=joblib.cpu_count(), help="processes (default: all cores)")
    own = parser.parse_args(argv)
    try:
        failed = _make(own.footage, own.out, own.jobs)
    except KeyboardInterrupt:
        log.info("stopped; the same command goes on where it was")
        return EXIT_INTERRUPTED
    except BrokenProcessPool:
        problem = f"--jobs {own.jobs}: a process was ended, for want of memory perhaps"
        tell_problems([f"{problem}; the same command with fewer goes on where it was"])
        return EXIT_USER_ERROR
    return EXIT_USER_ERROR if failed else 0


def _make(footage: Path, out_dir: Path, num_jobs: int) -> int:
    """Make what is missing of the keypoints of all footage, and their index; return how many files failed."""
    pieces = pieces_of(footage, out_dir)
    rows = rows_of(footage, pieces)
    with looking_at(out_dir, WriteError):
        missing = [piece for piece in pieces if not exists(piece.out)]
    for folder in {piece.out.parent for piece in missing}:
        _make_writable(folder)
    if len(missing) < len(pieces):
        log.info(f"{len(pieces) - len(missing)} of {len(pieces)} files are there already")
    failed = _extract_all(missing, num_jobs)
    if rows:
        write_index(rows, out_dir)
    log.info(f"{len(missing) - failed} of {len(missing)} files written to {out_dir}")
    return failed


def _make_writable(folder: Path) -> None:
    """Make a folder where there is none, and try to write there: not only after hours of extraction."""
    make_folder(folder)
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise WriteError.of(folder, error) from error


def _extract_all(pieces: Sequence[Piece], num_jobs: int) -> int:
    """Extract the pieces side by side; return how many could not be written, or were written without a clip."""
    failed = 0
    if len(pieces) == 1 and len(pieces[0].clips) == 1:
        return _tell(*extract(pieces[0], has_bar=True))
    # Started anew: MediaPipe's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    num_jobs = max(1, min(num_jobs, len(pieces)))
    with ProcessPoolExecutor(num_jobs, context, _end_with_the_command) as pool:
        try:
            running = [pool.submit(extract, piece) for piece in pieces]
            for done in with_bar(as_completed(running), len(pieces), "files"):
                failed += _tell(*done.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)  # or all that waits would be extracted first
            raise
    return failed


def _end_with_the_command() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_the_parent()


def _tell(warnings: Sequence[str], problems: Sequence[str]) -> bool:
    """Tell in the log what came of a piece; return whether it failed."""
    for warning in warnings:
        log.warning(f"note: {warning}")
    tell_problems(problems)
    return bool(problems)


def extract(piece: Piece, has_bar: bool = False) -> tuple[list[str], list[str]]:
    """Write the keypoints of a piece; return what is left out of a clip, and which clips are left out."""
    warnings: list[str] = []
    problems: list[str] = []
    arrays: dict[str, NDArray[np.float32]] = {}
    for name, path in piece.clips.items():
        try:
            footage = Footage(path)
            arrays[name] = keypoints_of(footage, has_bar)
        except DataError as error:
            problems += error.problems
            continue
        warnings += footage.problems
        if not arrays[name].any():
            warnings.append(f"{path}: nobody was found in any of {len(arrays[name])} frames")
    if arrays:
        write_atomically(piece.out, lambda file: write_arrays(file, arrays))
    return warnings, problems


def write_arrays(file: IO[bytes], arrays: Mapping[str, NDArray[np.float32]]) -> None:
    """As `numpy.savez_compressed` does, which takes no array that is called like one of its arguments: file."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
