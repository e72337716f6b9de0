"""Cross-validation: folds that hold each signer out once, sweeps that go on where they were."""

import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from launching import ROOT, clean_environment, succeed

from ds_trainer.cross_validation import sweep
from ds_trainer.cross_validation.command import main, signers_of_folds
from ds_trainer.cross_validation.folds import Fold, folds_of
from ds_trainer.cross_validation.sweep import FoldStopped, Waiting, locked_log, share_of
from ds_trainer.errors import DataError, UserError

SIGNERS = ["s1", "s2", "s3", "s4", "s5"]


# -- folds ------------------------------------------------------------------------------------------------------------


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
    names = [f"participant_{number:03}" for number in range(20)]
    folds = [*folds_of(names, 2, 1, 0), *folds_of(names, 3, 1, 0)]
    assert len({fold.dir_in(tmp_path) for fold in folds}) == 5


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


def test_unknown_metric_is_refused_before_the_first_fold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--deepspeed_config", str(ROOT / "ds_configs/fp32.json"), "--sweep_dir", str(tmp_path / "sweep")]
    assert main([*flags, "--data", str(tmp_path / "absent"), "--metric", "topl"]) == 2
    assert capsys.readouterr().out == "error: --metric: found 'topl'; did you mean 'top1' or 'top5'?\n"
    assert not (tmp_path / "sweep").exists()


def test_signals_that_stop_a_run_stop_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {}
    monkeypatch.setattr(signal, "signal", taken.__setitem__)
    assert main(["--jobs", "0", "--deepspeed_config", str(ROOT / "ds_configs/fp32.json")]) == 2
    assert taken == dict.fromkeys((signal.SIGTERM, signal.SIGUSR1), signal.default_int_handler)


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
        trained = pool.submit(sweep.run_folds, folds_of(SIGNERS, None, 1, 0), [], tmp_path, 1, lambda fold: False)
        with pytest.raises(sweep.FoldError, match="s1 held out, seed 0: training ended with status 2"):
            trained.result(timeout=20)
    assert len(started) == 1


def test_failure_is_told_also_where_a_worker_waits_for_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who waits sees that the sweep is over before the last lines of a long log are read."""
    monkeypatch.setattr(sweep, "_start", lambda *_: subprocess.Popen([sys.executable, "-Sc", "raise SystemExit(2)"]))
    folds = folds_of(SIGNERS[:2], None, 1, 0)
    with locked_log(folds[1], tmp_path), locked_log(folds[0], tmp_path) as log_file:  # type: ignore[union-attr]
        log_file.write(b"a line\n" * 500_000)
        log_file.close()
        with pytest.raises(sweep.FoldError, match="s1 held out, seed 0: training ended with status 2"):
            sweep.run_folds(folds, [], tmp_path, 2, lambda fold: False)


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


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_training_that_a_killed_sweep_left_behind_is_waited_for(store: Path, tmp_path: Path) -> None:
    """Two trainings of one fold at a time would write the same files."""
    flags = command(store, tmp_path, "--num_epochs", "40")
    process = subprocess.Popen(flags, cwd=ROOT, env=clean_environment({}), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("seed_0/*/*/metrics.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (run_dir,) = (path.parent for path in tmp_path.glob("seed_0/*/*/metrics.jsonl"))
    process.kill()
    process.wait()
    assert json.loads((run_dir / "status.json").read_text())["status"] == "running", "the test comes too late"
    output = succeed(flags, timeout_s=250)
    assert "fold 3/3" in output
    assert [path.name for path in run_dir.parent.glob("*/")] == [run_dir.name], "it was trained once"
    assert len(list(tmp_path.glob("seed_0/*/*/status.json"))) == 3


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sweeps_that_share_a_folder_share_the_folds(store: Path, tmp_path: Path) -> None:
    """As on two hosts that srun or pdsh started, whose variables a fold's training must not take for its own."""
    flags = command(store, tmp_path, "--num_epochs", "10")
    rank = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "SLURM_STEP_ID": "0"}
    sweeps = [
        subprocess.Popen(flags, cwd=ROOT, env=clean_environment(rank), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    outputs = [each.communicate(timeout=250)[0].decode() for each in sweeps]
    assert [each.returncode for each in sweeps] == [0, 0], outputs
    run_dirs = [path.parent for path in tmp_path.glob("seed_*/*/*/status.json")]
    assert len(run_dirs) == 3, "each fold was trained once"
    times = sorted(
        [run_dir.joinpath(name).stat().st_mtime for name in ("run.yaml", "status.json")] for run_dir in run_dirs
    )
    assert any(next_begins < ends for (_, ends), (next_begins, _) in itertools.pairwise(times)), "two at a time"
    tables = [output[output.index("held out   ") :] for output in outputs]
    assert tables[0] == tables[1]


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_sweep_that_is_ended_ends_its_training_at_a_resume_point(store: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(store, tmp_path, "--num_epochs", "500"), cwd=ROOT, env=clean_environment({}), stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("seed_0/*/*/metrics.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.terminate()
    assert process.wait(60) == 75
    (status_path,) = tmp_path.glob("seed_0/*/*/status.json")
    assert json.loads(status_path.read_text())["status"] == "stopped"


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


# -- sweeps -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stores = tmp_path_factory.mktemp("stores")
    shape = ["--num_clips", "48", "--num_signs", "3", "--num_signers", "3", "--min_frames", "8", "--max_frames", "12"]
    succeed([sys.executable, "launch/prepare.py", "--source", "synthetic", *shape, "--stores_dir", stores])
    (path,) = stores.glob("*/")
    return path


def command(store: Path, sweep_dir: Path, *flags: str) -> list[str | Path]:
    shared = ["--deepspeed_config", "ds_configs/fp32.json", "--data", store, "--sweep_dir", sweep_dir]
    model = ["--model", "bilstm", "--model_size", "t_1_1", "--num_frames", "8", "--num_epochs", "3"]
    return [sys.executable, "launch/cross_validate.py", *shared, *model, *flags]


@pytest.mark.any_device
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_sweep_goes_on_and_ends_like_one_that_was_not(store: Path, tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    output = succeed(command(store, straight, "--jobs", "2"), timeout_s=300)
    assert "fold 3/3" in output
    process = subprocess.Popen(
        command(store, killed), cwd=ROOT, env=clean_environment({}), start_new_session=True, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(killed.glob("seed_0/*/*/metrics.jsonl")) or len(list(killed.glob("seed_0/*/*/status.json"))) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=False)  # its training, in the same session
    output = succeed(command(store, killed), timeout_s=300)
    assert "1 of 3 folds are done already" in output
    one, other = (json.loads((folder / "results.json").read_text()) for folder in (straight, killed))
    assert one["scores"] == other["scores"]
    assert set(one["scores"]["0"]) == {path.name for path in (straight / "seed_0").iterdir()}
    num_examples = 0
    for signer, score in one["scores"]["0"].items():
        (status_path,) = (straight / "seed_0" / signer).glob("*/status.json")
        status = json.loads(status_path.read_text())
        assert status["results"]["top1"] == pytest.approx(score), "one signer is the whole test split"
        num_examples += status["by_group"][signer]["num_examples"]
    assert num_examples == 48


@pytest.mark.slow
def test_other_settings_in_the_same_folder_are_refused(store: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({"settings": {"dropout": 0.7}, "num_epochs": 3}))
    refused = subprocess.run(
        command(store, tmp_path, "--dropout", "0.2"),
        cwd=ROOT,
        env=clean_environment({}),
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2
    assert "holds a sweep of other settings: " in refused.stdout
    assert "dropout" in refused.stdout
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--split", "random"], "--split: found among the settings"),
        (["--config", "dry.yaml"], "--dry_run: found among the settings"),
        (["--task", "toy"], "--task: found toy, expected sign"),
        (["--seeds", "0"], "--seeds: found 0"),
        (["--dropuot", "0.1"], "did you mean"),
    ],
)
def test_impossible_sweeps_are_told_at_once(store: Path, tmp_path: Path, flags: list[str], told: str) -> None:
    (tmp_path / "dry.yaml").write_text("dry_run: true\n")
    flags = [str(tmp_path / flag) if flag == "dry.yaml" else flag for flag in flags]
    flags = [*command(store, tmp_path / "sweep", *flags)] if "toy" not in flags else [
        sys.executable, "launch/cross_validate.py", "--deepspeed_config", "ds_configs/fp32.json", *flags
    ]  # fmt: skip
    refused = subprocess.run(flags, cwd=ROOT, env=clean_environment({}), capture_output=True, text=True)
    assert (refused.returncode, told in refused.stdout) == (2, True), refused.stdout + refused.stderr
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_failing_fold_ends_the_sweep_with_its_last_lines(store: Path, tmp_path: Path) -> None:
    failing = command(store, tmp_path, "--expect_world_size", "2")
    refused = subprocess.run(failing, cwd=ROOT, env=clean_environment({}), capture_output=True, text=True)
    assert refused.returncode == 2
    *_, first, last = refused.stdout.splitlines()
    assert first.startswith("error: 01 held out, seed 0: training ended with status 2")
    assert last.startswith("    error: --expect_world_size")
