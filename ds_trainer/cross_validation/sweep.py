"""Runs the folds, one after the other or side by side, each a command of the ordinary kind in a process of its own."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import Queue
from threading import Event, Lock
from typing import IO, Any

import joblib
import torch

from ds_trainer.cross_validation.fold_logs import locked_log
from ds_trainer.cross_validation.folds import Fold
from ds_trainer.errors import CheckpointError, UserError
from ds_trainer.job import EXIT_STOPPED
from ds_trainer.problems import reason_of
from ds_trainer.progress import clock, log
from ds_trainer.rank_variables import without_ranks
from ds_trainer.run.reading import read_json

_LINES_SHOWN = 15
_CHECKOUT = Path(__file__).resolve().parents[2]

CommandOf = Callable[[Fold], list[Any]]


class FoldError(UserError):
    """The training of a fold failed.

    Args:
        last_lines: of its log, told below the problem.
    """

    def __init__(self, problem: str, last_lines: Sequence[str] = ()):
        super().__init__(problem)
        self.problems = ["\n    ".join([*self.problems, *last_lines])]


class FoldStopped(Exception):
    """The training of a fold was asked to stop, and can be continued."""


def finished_run(fold: Fold, sweep_dir: Path) -> Path | None:
    """The newest run of the fold that has ended; None: there is none yet."""
    for run_dir in sorted((path.parent for path in fold.dir_in(sweep_dir).glob("*/status.json")), reverse=True):
        if _read(run_dir / "status.json").get("status") == "finished":
            return run_dir
    return None


def scores_in(path: Path, fold: Fold, metric: str) -> dict[str, float]:
    """The score of each signer held out, as the status of a run that has ended or an evaluation of it tells."""
    by_group = _read(path)["by_group"]
    found = {signer: by_group[signer][metric] for signer in fold.signers}
    return {signer: math.nan if score is None else score for signer, score in found.items()}  # null in JSON


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({reason_of(error)}), expected what training wrote; delete its folder"
        ) from error


def run_folds(
    folds: Sequence[Fold], command_of: CommandOf, sweep_dir: Path, num_jobs: int, is_done: Callable[[Fold], bool]
) -> None:
    """Run what is not done yet.

    A fold that another process trains is left to it, as long as there are others: sweeps on several hosts that share
    the folder share the folds.

    Args:
        command_of: what is run for a fold: a module and its arguments.
        is_done: whether that was done; it may refuse how.
        num_jobs: folds side by side; they share the processor's cores, and each has a GPU of its own if there are any.

    Raises:
        FoldError: one failed; others that ran beside it were ended.
        FoldStopped: one was stopped on request.
    """
    remaining = _remaining(folds, is_done)
    num_before = len(folds) - len(remaining)
    began = time.monotonic()
    trainings = _Trainings(command_of, sweep_dir, num_jobs)
    waiting = Waiting(remaining, sweep_dir, trainings.is_over)

    def run() -> Fold:
        fold, log_file = waiting.next()
        with log_file:
            if not is_done(fold):
                trainings.train(fold, log_file)
                is_done(fold)  # or it is told at once that the data is no longer what it was
        return fold

    with ThreadPoolExecutor(num_jobs) as pool:
        try:
            for num_done, ended in enumerate(as_completed(pool.submit(run) for _ in remaining), start=1):
                left_s = (time.monotonic() - began) / num_done * (len(remaining) - num_done)
                log.info(f"fold {num_before + num_done}/{len(folds)}: {ended.result()}  {clock(left_s)} left")
        except BaseException as error:
            trainings.end()
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, FoldStopped) and trainings.cause is not None:  # of one who waited, and knows no more
                raise trainings.cause from None
            raise


def _remaining(folds: Sequence[Fold], is_done: Callable[[Fold], bool]) -> list[Fold]:
    remaining = [fold for fold in folds if not is_done(fold)]
    if len(remaining) < len(folds):
        log.info(f"{len(folds) - len(remaining)} of {len(folds)} folds are done already")
    return remaining


def share_of(job: int, num_jobs: int) -> dict[str, str]:
    """The environment of one of the jobs: its cores, of which no more than this process uses, and its GPU,
    one of those that this process may use."""
    num_threads = min(torch.get_num_threads(), max(1, joblib.cpu_count() // num_jobs))
    share = {"OMP_NUM_THREADS": str(num_threads)}
    if num_gpus := torch.cuda.device_count():
        numbers = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(num_gpus)))
        share["CUDA_VISIBLE_DEVICES"] = numbers.split(",")[job % num_gpus]
    return share


class _Trainings:
    """Processes that train folds side by side, until one fails or the sweep ends."""

    def __init__(self, command_of: CommandOf, sweep_dir: Path, num_jobs: int):
        self.is_over = Event()
        self.cause: FoldError | FoldStopped | None = None
        """What ended the sweep, if a training did."""
        self._command_of = command_of
        self._sweep_dir = sweep_dir
        self._processes: list[subprocess.Popen[bytes]] = []
        self._starting = Lock()
        self._shares: Queue[dict[str, str]] = Queue()
        for job in range(num_jobs):
            self._shares.put(share_of(job, num_jobs))

    def train(self, fold: Fold, log_file: IO[bytes]) -> None:
        """Train a fold, and wait for the end of it.

        Raises:
            FoldError: it failed.
            FoldStopped: it was stopped on request, or the sweep is over.
        """
        share = self._shares.get()
        try:
            with self._starting:
                if self.is_over.is_set():  # a worker is free again before the sweep knows why
                    raise FoldStopped(str(fold))
                process = _start(self._command_of(fold), share, log_file)
                self._processes.append(process)
            error = _error_of(fold, process.wait(), self._sweep_dir)
            if error is not None and not self.is_over.is_set():
                self.cause = error
                self.is_over.set()
        finally:
            self._shares.put(share)
        if error is not None:
            raise error

    def end(self) -> None:
        """Start nothing more, and end what runs, at a resume point; all of it, also where a signal interrupts this."""
        try:
            self._end()
        except KeyboardInterrupt:  # it comes once
            self._end()
            raise

    def _end(self) -> None:
        with self._starting:
            self.is_over.set()
        for process in self._processes:
            if process.poll() is None:
                process.terminate()


class Waiting:
    """Folds that no worker of this sweep has taken yet."""

    def __init__(self, folds: Sequence[Fold], sweep_dir: Path, is_over: Event):
        self._folds = list(folds)
        self._sweep_dir = sweep_dir
        self._is_over = is_over
        self._choosing = Lock()
        self._is_told = False

    def next(self) -> tuple[Fold, IO[bytes]]:
        """The next fold that nobody trains, and its log, which is locked while it is open.

        Another sweep may train a fold, or one that was killed may have left its training behind: that goes on, and this
        waits for its end when nothing else is left.

        Raises:
            FoldStopped: the sweep is over.
        """
        while True:
            with self._choosing:
                for fold in self._folds:
                    log_file = locked_log(fold, self._sweep_dir)
                    if log_file is not None:
                        self._folds.remove(fold)
                        return fold, log_file
                if not self._is_told:
                    named = "; ".join(map(str, self._folds))
                    log.info(f"waiting for what other processes train: {named}")
                self._is_told = True
            if self._is_over.wait(1.0):
                raise FoldStopped


def _start(command: Sequence[Any], share: Mapping[str, str], log_file: IO[bytes]) -> subprocess.Popen[bytes]:
    environment = {**without_ranks(os.environ), **share}
    # Python would take modules from the working directory first, which may be a folder of data from elsewhere.
    options = ["-m"] if Path.cwd() == _CHECKOUT else ["-P", "-m"]
    return subprocess.Popen(
        [sys.executable, *options, *command], stdout=log_file, stderr=subprocess.STDOUT, env=environment
    )


def _error_of(fold: Fold, status: int, sweep_dir: Path) -> FoldError | FoldStopped | None:
    """What to raise for a training that ended with this status; None: it has ended well."""
    if status == 0:
        return None
    if status == EXIT_STOPPED:
        return FoldStopped(str(fold))
    path = fold.dir_in(sweep_dir) / "log.txt"
    last = path.read_text(encoding="utf-8", errors="backslashreplace").splitlines()[-_LINES_SHOWN:]
    return FoldError(f"{fold}: its process ended with status {status}; its log is {path}, and ends:", last)
