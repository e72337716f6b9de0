"""Sweeps as users start them: killed, shared, ended, refused and failing."""

import itertools
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from launching import ROOT, clean_environment, done_here, run, succeed

from ds_trainer.cross_validation.command import main
from ds_trainer.tasks.sign.prepare import main as prepare
from ds_trainer.tasks.sign.store import ClipStore


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_training_that_a_killed_sweep_left_behind_is_waited_for(store: Path, tmp_path: Path) -> None:
    """Two trainings of one fold at a time would write the same files."""
    flags = command(store, tmp_path, "--folds", "2", "--num_epochs", "40")
    process = subprocess.Popen(flags, cwd=ROOT, env=clean_environment({}), stdout=subprocess.DEVNULL)
    run_dir = await_first_epoch(tmp_path)
    process.kill()
    process.wait()
    assert json.loads((run_dir / "status.json").read_text())["status"] == "running", "the test comes too late"
    output = succeed(flags, timeout_s=250)
    assert "fold 2/2" in output
    assert [path.name for path in run_dir.parent.glob("*/")] == [run_dir.name], "it was trained once"
    assert len(list(tmp_path.glob("seed_0/*/*/status.json"))) == 2


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sweeps_that_share_a_folder_share_the_folds(shared: tuple[Path, list[str]]) -> None:
    sweep_dir, outputs = shared
    run_dirs = [path.parent for path in sweep_dir.glob("seed_*/*/*/status.json")]
    assert len(run_dirs) == 3, "each fold was trained once"
    times = sorted(
        [run_dir.joinpath(name).stat().st_mtime for name in ("run.yaml", "status.json")] for run_dir in run_dirs
    )
    assert any(next_begins < ends for (_, ends), (next_begins, _) in itertools.pairwise(times)), "two at a time"
    tables = [output[output.index("held out   ") :] for output in outputs]
    assert tables[0] == tables[1]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sweep_that_is_ended_ends_its_training_at_a_resume_point(store: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(store, tmp_path, "--num_epochs", "500"), cwd=ROOT, env=clean_environment({}), stdout=subprocess.DEVNULL
    )
    await_first_epoch(tmp_path)
    process.terminate()
    assert process.wait(100) == 75
    (status_path,) = tmp_path.glob("seed_0/*/*/status.json")
    assert json.loads(status_path.read_text())["status"] == "stopped"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stores = tmp_path_factory.mktemp("stores")
    shape = ["--num_clips", "48", "--num_signs", "3", "--num_signers", "3", "--min_frames", "8", "--max_frames", "12"]
    done_here(prepare, "--source", "synthetic", *shape, "--stores_dir", stores)
    (path,) = stores.glob("*/")
    return path


@pytest.fixture(scope="module")
def shared(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder and the outputs of two sweeps in it: as on two hosts that srun or pdsh started, whose variables a
    fold's training must not take for its own."""
    sweep_dir = tmp_path_factory.mktemp("shared")
    flags = command(store, sweep_dir, "--num_epochs", "10")
    rank = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "SLURM_STEP_ID": "0"}
    sweeps = [
        subprocess.Popen(flags, cwd=ROOT, env=clean_environment(rank), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    outputs = [each.communicate(timeout=250)[0].decode() for each in sweeps]
    assert [each.returncode for each in sweeps] == [0, 0], outputs
    return sweep_dir, outputs


ENGINE = ["--deepspeed_config", str(ROOT / "ds_configs/fp32.json")]


def flags_of(store: Path, sweep_dir: Path, *flags: str) -> list[str]:
    shared = [*ENGINE, "--data", str(store), "--sweep_dir", str(sweep_dir)]
    model = ["--model", "bilstm", "--model_size", "t_1_1", "--num_frames", "8", "--num_epochs", "3"]
    return [*shared, *model, *flags]


def command(store: Path, sweep_dir: Path, *flags: str) -> list[str]:
    return [sys.executable, "launch/cross_validate.py", *flags_of(store, sweep_dir, *flags)]


@pytest.fixture
def no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep within this process leaves its signals as they are."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)


@pytest.mark.any_device
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_sweep_goes_on_and_ends_like_one_that_was_not(
    store: Path, shared: tuple[Path, list[str]], tmp_path: Path
) -> None:
    (straight, _), killed = shared, tmp_path
    flags = command(store, killed, "--num_epochs", "10")
    process = subprocess.Popen(
        flags, cwd=ROOT, env=clean_environment({}), start_new_session=True, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(killed.glob("seed_0/*/*/metrics.jsonl")) or len(list(killed.glob("seed_0/*/*/status.json"))) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=False)  # its training, in the same session
    output = succeed([*flags, "--jobs", "2"], timeout_s=300)
    assert "1 of 3 folds are done already" in output
    assert "fold 3/3" in output
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
@pytest.mark.usefixtures("no_signals")
def test_other_settings_in_the_same_folder_are_refused(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({"settings": {"dropout": 0.7}, "num_epochs": 3}))
    assert main(flags_of(store, tmp_path, "--dropout", "0.2")) == 2
    told = capsys.readouterr().out
    assert "holds a sweep of other settings: " in told
    assert "dropout" in told


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_folds_are_trained_as_the_sweep_began_whatever_becomes_of_the_files(store: Path, tmp_path: Path) -> None:
    recipe, engine, sweep_dir = tmp_path / "recipe.yaml", tmp_path / "engine.json", tmp_path / "sweep"
    recipe.write_text("dropout: 0.1\nlabel_smoothing: 1e-05\n")
    engine.write_text((ROOT / "ds_configs/fp32.json").read_text())
    flags = command(store, sweep_dir, "--config", str(recipe), "--deepspeed_config", str(engine), "--folds", "2")
    process = subprocess.Popen(flags, cwd=ROOT, env=clean_environment({}), stdout=subprocess.DEVNULL)
    await_first_epoch(sweep_dir)
    recipe.write_text("dropout: 0.4\n")
    engine.write_text("{")
    assert process.wait(200) == 0
    run_dirs = [path.parent for path in sweep_dir.glob("seed_0/*/*/run.yaml")]
    settings = [yaml.safe_load((run_dir / "run.yaml").read_text()) for run_dir in run_dirs]
    assert [(each["dropout"], each["label_smoothing"]) for each in settings] == 2 * [(0.1, 1e-05)]
    assert len({(run_dir / "engine.json").read_text() for run_dir in run_dirs}) == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_table_holds_folds_of_other_data(store: Path, tmp_path: Path) -> None:
    data, sweep_dir, prepared = tmp_path / "clips.npz", tmp_path / "sweep", ClipStore.open(store)
    arrays = {"frames": prepared.frames, "offsets": prepared.offsets, "y": prepared.sign, "signer": prepared.signer}
    np.savez(data, **arrays)
    flags = command(data, sweep_dir, "--stores_dir", str(tmp_path / "stores"))
    process = subprocess.Popen(flags, cwd=ROOT, env=clean_environment({}), stdout=subprocess.PIPE, text=True)
    run_dir = await_first_epoch(sweep_dir)
    np.savez(data, **arrays | {"y": np.roll(prepared.sign, 1)})  # clips get other signs
    output, _ = process.communicate(timeout=200)
    *_, refused = output.splitlines()
    assert (process.returncode, (sweep_dir / "table.txt").exists()) == (2, False), output
    assert "is no run of this sweep: data fingerprint was " in refused
    assert str(run_dir) not in refused
    statuses = [json.loads(path.read_text())["status"] for path in sweep_dir.glob("seed_0/*/*/status.json")]
    assert statuses.count("finished") == 2, "it was told before the third had trained"

    np.savez(data, **arrays)
    again = run(flags)
    assert (again.returncode, again.stdout.splitlines()[-1]) == (2, refused)
    (other,) = (path.parent for path in sweep_dir.glob("seed_0/*/*/run.yaml") if str(path.parent) in refused)
    shutil.rmtree(other)
    moved = [flag if flag != data else data.rename(tmp_path / "moved.npz") for flag in flags]
    with subprocess.Popen(moved, cwd=ROOT, env=clean_environment({}), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("1 of 3 folds are done already" in line for line in process.stdout)
        process.terminate()
    assert process.returncode == 75


def await_first_epoch(sweep_dir: Path) -> Path:
    """The run directory of the first fold, which trains."""
    deadline = time.monotonic() + 150  # two processes import torch and DeepSpeed before it, one after the other
    while not (records := list(sweep_dir.glob("seed_0/*/*/metrics.jsonl"))):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return records[0].parent


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
@pytest.mark.usefixtures("no_signals")
def test_impossible_sweeps_are_told_at_once(
    store: Path, tmp_path: Path, flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dry.yaml").write_text("dry_run: true\n")
    flags = [str(tmp_path / flag) if flag == "dry.yaml" else flag for flag in flags]
    is_of_signs = "toy" not in flags
    given = flags_of(store, tmp_path / "sweep", *flags) if is_of_signs else [*ENGINE, *flags]
    assert main(given) == 2
    assert told in capsys.readouterr().out
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_failing_fold_ends_the_sweep_with_its_last_lines(store: Path, tmp_path: Path) -> None:
    failing = command(store, tmp_path, "--expect_world_size", "2")
    refused = subprocess.run(failing, cwd=ROOT, env=clean_environment({}), capture_output=True, text=True)
    assert refused.returncode == 2
    *_, first, last = refused.stdout.splitlines()
    assert first.startswith("error: 01 held out, seed 0: its process ended with status 2")
    assert last.startswith("    error: --expect_world_size")
