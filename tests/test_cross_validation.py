"""Folds that hold each signer out once, and what a sweep over them decides before and between its trainings."""

import errno
import fcntl
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import pytest
from launching import ROOT

from ds_trainer.cross_validation import sweep
from ds_trainer.cross_validation.command import main, signers_of_folds
from ds_trainer.cross_validation.fold_commands import training_of
from ds_trainer.cross_validation.fold_logs import locked_log
from ds_trainer.cross_validation.folds import Fold, folds_of
from ds_trainer.cross_validation.sweep import FoldStopped, Waiting, share_of
from ds_trainer.errors import DataError, UserError, WriteError

SIGNERS = ["s1", "s2", "s3", "s4", "s5"]


def nothing(fold: Fold) -> list[Any]:
    return []


def test_signers_without_a_clip_of_the_selected_signs_are_not_held_out() -> None:
    store: Any = SimpleNamespace(
        signer_names=["s1", "s10", "s2"],
        sign_numbers=[1, 2, 3],
        sign=np.array([0, 2, 1, 1]),
        signer=np.array([0, 0, 1, 2]),
    )

    def signers(first: int | None, last: int | None, asked: list[str]) -> list[str]:
        return signers_of_folds(
            SimpleNamespace(selected_signs_from=first, selected_signs_to=last, signers=asked), store
        )

    assert signers(None, None, []) == ["s1", "s2", "s10"]
    assert signers(2, None, ["s10", "s1"]) == ["s1", "s10"]
    assert signers(3, 3, []) == ["s1"]
    assert signers(2, 2, []) == ["s2", "s10"]
    with pytest.raises(DataError, match=r"^--signers: found signer 'S2', expected one of the data's; did you mean"):
        signers(None, None, ["s1", "S2"])
    with pytest.raises(DataError, match="found no sign with clips in this range, expected one within"):
        signers(4, None, [])


@pytest.mark.parametrize("num_groups", [None, 2, 3, 5])
def test_each_signer_is_held_out_once_a_seed(num_groups: int | None) -> None:
    folds = folds_of(SIGNERS, num_groups, num_seeds=2, first_seed=7)
    assert len(folds) == 2 * (num_groups or 5)
    for seed in (7, 8):
        groups = [fold.signers for fold in folds if fold.seed == seed]
        assert [signer for group in groups for signer in group] == SIGNERS
        assert max(map(len, groups)) - min(map(len, groups)) <= 1


def test_a_fold_is_an_ordinary_split(tmp_path: Path) -> None:
    fold = Fold(("s1", "s2"), seed=3)
    assert fold.flags == ["--split", "signer:s1,s2", "--seed", "3"]
    assert fold.dir_in(tmp_path) == tmp_path / "seed_3" / "s1_s2"


def test_groups_of_many_names_have_folders_of_their_own(tmp_path: Path) -> None:
    signers = [f"participant_{number:03}" for number in range(60)]
    folds = [*folds_of(signers, 2, 1, 0), *folds_of(signers, 3, 1, 0)]
    names = {fold.dir_in(tmp_path).name for fold in folds}
    assert len(names) == 5
    assert max(map(len, names)) < 100, "a file system takes 255 bytes"


@pytest.mark.parametrize(
    ("visible", "expected"), [(None, "0 1 0"), ("2,3", "2 3 2"), ("GPU-a,GPU-b", "GPU-a GPU-b GPU-a")]
)
def test_jobs_share_the_gpus_that_the_sweep_was_given(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: str
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [share_of(job, 3)["CUDA_VISIBLE_DEVICES"] for job in range(3)] == expected.split()


@pytest.mark.parametrize(("num_jobs", "allowed", "expected"), [(1, 8, 8), (3, 8, 2), (20, 8, 1), (2, 1, 1), (2, 6, 4)])
def test_jobs_share_the_cores(monkeypatch: pytest.MonkeyPatch, num_jobs: int, allowed: int, expected: int) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    monkeypatch.setattr("torch.get_num_threads", lambda: allowed)
    assert share_of(0, num_jobs) == {"OMP_NUM_THREADS": str(expected)}


def test_training_of_a_fold_is_no_rank_of_the_job_that_the_sweep_is_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda command, **given: (command, given["env"]))
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")
    training = training_of([], tmp_path)(Fold(("s1",), 3))
    command, environment = sweep._start(training, {"OMP_NUM_THREADS": "2"}, None)  # type: ignore[arg-type]
    assert command[-4:] == ["--runs_dir", tmp_path / "seed_3" / "s1", "--resume", "auto"]
    assert environment["OMP_NUM_THREADS"] == "2"
    assert not {"RANK", "WORLD_SIZE", "LOCAL_RANK"} & environment.keys()


def test_unknown_metric_is_refused_before_the_first_fold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--deepspeed_config", str(ROOT / "ds_configs/fp32.json"), "--sweep_dir", str(tmp_path / "sweep")]
    assert main([*flags, "--data", str(tmp_path / "absent"), "--metric", "topl"]) == 2
    assert capsys.readouterr().out == "error: --metric: found 'topl'; did you mean 'top1' or 'top5'?\n"
    assert not (tmp_path / "sweep").exists()


def test_folders_of_odd_names_stay_in_the_sweep(tmp_path: Path) -> None:
    names = ["..", "a/b", "a_b", "/etc", "Lee, Ann", ".hidden", "ünï"]
    folders = [Fold((name,), seed=0).dir_in(tmp_path) for name in names]
    assert {folder.resolve().parent for folder in folders} == {(tmp_path / "seed_0").resolve()}
    assert len(set(folders)) == len(names)
    assert [folders[2].name, folders[6].name] == ["a_b", "ünï"]


def test_failing_fold_ends_a_sweep_that_has_more_to_train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started = []

    def fail(fold: Fold, *others: object) -> subprocess.Popen[bytes]:
        started.append(fold)
        return subprocess.Popen([sys.executable, "-c", "raise SystemExit(2)"])

    def late(futures: Iterable[Future[Fold]]) -> Iterator[Future[Fold]]:
        for ended in as_completed(futures):
            time.sleep(1)  # a worker has time to take the next folds
            yield ended

    monkeypatch.setattr(sweep, "_start", fail)
    monkeypatch.setattr(sweep, "as_completed", late)
    with ThreadPoolExecutor(1) as pool:
        trained = pool.submit(sweep.run_folds, folds_of(SIGNERS, None, 1, 0), nothing, tmp_path, 1, lambda fold: False)
        with pytest.raises(sweep.FoldError, match="s1 held out, seed 0: its process ended with status 2"):
            trained.result(timeout=20)
    assert len(started) == 1


def test_failure_is_told_also_where_a_worker_waits_for_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who waits sees that the sweep is over before the last lines of a long log are read."""
    monkeypatch.setattr(sweep, "_start", lambda *_: subprocess.Popen([sys.executable, "-Sc", "raise SystemExit(2)"]))
    folds = folds_of(SIGNERS[:2], None, 1, 0)
    with locked_log(folds[1], tmp_path), locked_log(folds[0], tmp_path) as log_file:  # type: ignore[union-attr]
        log_file.write(b"a l\xefne\n" * 500_000)
        log_file.close()
        with pytest.raises(sweep.FoldError, match="s1 held out, seed 0: its process ended with status 2") as told:
            sweep.run_folds(folds, nothing, tmp_path, 2, lambda fold: False)
    assert told.value.problems[0].splitlines()[1:] == 15 * ["    a l\\xefne"]


def test_folds_that_others_train_come_last(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="ds_trainer")
    folds, is_over = folds_of(SIGNERS, None, 1, 0), Event()
    other = locked_log(folds[0], tmp_path)
    assert other is not None
    waiting = Waiting(folds, tmp_path, is_over)
    taken = [waiting.next() for _ in folds[1:]]
    assert [fold for fold, _ in taken] == folds[1:]
    with ThreadPoolExecutor(1) as pool:
        last = pool.submit(waiting.next)
        with pytest.raises(TimeoutError):
            last.result(timeout=1.5)
        assert caplog.messages == ["waiting for what other processes train: s1 held out, seed 0"], "told once"
        other.close()
        fold, log_file = last.result(timeout=10)
        assert fold == folds[0]
        log_file.close()
    assert locked_log(folds[1], tmp_path) is None, "while the sweep has its log open"
    is_over.set()
    with pytest.raises(FoldStopped):
        Waiting(folds[1:2], tmp_path, is_over).next()
    for _, log_file in taken:
        log_file.close()


@pytest.mark.parametrize(
    ("signers", "num_groups", "told"),
    [
        (["s1"], None, "--signers: found s1 alone to hold out, expected two at least"),
        ([], None, "--signers: found nobody to hold out"),
        (["unknown"], None, "--data: does not say who signs, expected at least two signers; folders {signer}/{sign}, "),
        (SIGNERS, 1, "--folds: found 1, expected 2 to 5"),
        (SIGNERS, 6, "--folds: found 6, expected 2 to 5"),
    ],
)
def test_impossible_folds_are_refused(signers: list[str], num_groups: int | None, told: str) -> None:
    with pytest.raises(UserError) as refused:
        folds_of(signers, num_groups, 1, 0)
    assert str(refused.value).startswith(told)


def test_fold_is_trained_on_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: IO[bytes], operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    log_file = locked_log(Fold(("s1",), seed=0), tmp_path)
    assert log_file is not None
    log_file.close()


def test_a_link_in_place_of_a_log_is_told_and_its_target_left(tmp_path: Path) -> None:
    """A sweep's folder from elsewhere may hold one: what trainings tell was appended to any file of the user's."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    [fold, *_] = folds_of(SIGNERS, None, 1, 0)
    fold.dir_in(tmp_path).mkdir(parents=True)
    (fold.dir_in(tmp_path) / "log.txt").symlink_to(precious)
    with pytest.raises(WriteError, match=r"log\.txt: cannot be written \(Too many levels of"):
        locked_log(fold, tmp_path)
    assert precious.read_text() == "precious"


def test_trainings_import_nothing_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a folder of data; launch/train.py takes no module from there either."""
    (tmp_path / "filelock.py").write_text("raise SystemExit('found in the working directory')")
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "log.txt").open("wb") as log_file:
        process = sweep._start(["ds_trainer", "--help"], {}, log_file)
        assert process.wait(60) == 0, (tmp_path / "log.txt").read_text()
