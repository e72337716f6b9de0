"""A run that is asked to stop finishes its step, saves, says so, and continues to the same end."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from launching import ROOT, clean_environment, run, succeed, torchrun

from ds_trainer.checkpoint import load_checkpoint
from ds_trainer.job import EXIT_STOPPED

TRAIN = [
    sys.executable, "launch/train.py", "--deepspeed_config", "ds_configs/bf16.json", "--task", "toy",
    "--num_epochs", "40", "--record_every_steps", "1",
]  # fmt: skip


@pytest.mark.any_device
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_stopped_run_says_how_to_continue_and_ends_like_a_straight_one(tmp_path: Path) -> None:
    straight_dir, runs_dir = tmp_path / "straight", tmp_path / "runs"
    succeed([*TRAIN, "--runs_dir", straight_dir])
    output = _stop_in_the_middle([*TRAIN, "--runs_dir", str(runs_dir)], runs_dir)
    (run_dir,) = runs_dir.iterdir()
    assert f"--resume {run_dir}" in output
    status = json.loads((run_dir / "status.json").read_text())
    assert (status["status"], status["reason"]) == ("stopped", "SIGTERM")
    assert f"continuing {run_dir}" in succeed([*TRAIN, "--runs_dir", runs_dir, "--resume", "auto"])
    (straight_run,) = straight_dir.iterdir()
    drawn = sorted(path.name for path in (straight_run / "diagnostics").iterdir())
    assert "curves.png" in drawn
    for name in drawn:
        contents = [(path / "diagnostics" / name).read_bytes() for path in (straight_run, run_dir)]
        assert contents[0] == contents[1], f"{name} differs"
    straight, continued = (load_checkpoint(path / "best.pth") for path in (straight_run, run_dir))
    assert continued["step"] == straight["step"]
    assert continued["metrics"] == straight["metrics"]
    for name, weight in straight["state_dict"].items():
        assert torch.equal(continued["state_dict"][name], weight), name


def _stop_in_the_middle(command: list[str], runs_dir: Path) -> str:
    """Send SIGTERM once the second epoch goes on."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        records = [path.read_text() for path in runs_dir.glob("*/metrics.jsonl")]
        if records and '"epoch": 1' in records[0]:
            process.send_signal(signal.SIGTERM)
            break
        time.sleep(0.01)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT_STOPPED, output
    return output


def _start_of(task: str, world_size: int) -> list[str | Path]:
    start = [sys.executable] if world_size == 1 else torchrun(world_size)
    flags = ["--deepspeed_config", ROOT / "ds_configs" / "bf16.json", "--task", task, "--resume", "auto"]
    return [*start, ROOT / "launch" / "train.py", *flags]


ASKED_IN_VALIDATION = """
import signal

from torch.utils.data import Dataset

from ds_trainer.distributed import rank, world_size
from ds_trainer.tasks.toy.task import ToyTask


class Asking(Dataset):
    def __init__(self, points):
        self.points = points

    def __len__(self):
        return len(self.points)

    def __getitem__(self, number):
        handler = signal.getsignal(signal.SIGTERM)
        is_heeded = getattr(handler, "__module__", "") == "ds_trainer.stopping"  # not yet in the rehearsal
        if is_heeded and rank() == world_size() - 1:
            signal.raise_signal(signal.SIGTERM)
        return self.points[number]


class AskedInValidation(ToyTask):
    def __init__(self, settings):
        super().__init__(settings)
        self.val_set = Asking(self.val_set)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("world_size", [1, 2])
def test_asked_in_the_last_validation_a_run_stops_after_it_and_asked_while_scoring_it_ends(
    tmp_path: Path, world_size: int
) -> None:
    (tmp_path / "asked.py").write_text(ASKED_IN_VALIDATION)
    command = [*_start_of("asked:AskedInValidation", world_size), "--num_epochs", "1"]
    stopped = run(command, cwd=tmp_path)
    assert "stopped by SIGTERM" in stopped.stdout, stopped.stdout
    assert stopped.returncode == (EXIT_STOPPED if world_size == 1 else 1), "torchrun has a status of its own"
    (run_dir,) = (tmp_path / "runs").iterdir()
    status = json.loads((run_dir / "status.json").read_text())
    assert (status["status"], status["epochs_done"]) == ("stopped", 1)
    assert f"step {status['steps_done']}" in succeed(command, cwd=tmp_path), "no step is repeated"
    assert json.loads((run_dir / "status.json").read_text())["status"] == "finished"


ASKED_WHILE_BUILDING = """
import os
import signal

from ds_trainer.distributed import rank, world_size
from ds_trainer.tasks.toy.task import ToyTask


class AskedWhileBuilding(ToyTask):
    def build_model(self):
        if rank() == world_size() - 1:
            signal.raise_signal(int(os.environ["NUMBER"]))
        return super().build_model()
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("world_size", [1, 2])
def test_sigusr1_to_a_job_that_starts_is_heeded_after_its_first_step_and_sigterm_at_once(
    tmp_path: Path, world_size: int
) -> None:
    (tmp_path / "asked.py").write_text(ASKED_WHILE_BUILDING)
    command = _start_of("asked:AskedWhileBuilding", world_size)
    ended = run(command, cwd=tmp_path, env={"NUMBER": str(int(signal.SIGTERM))})
    assert ended.returncode == (-signal.SIGTERM if world_size == 1 else 1), ended.stdout
    assert not (tmp_path / "runs").exists()
    stopped = run(command, cwd=tmp_path, env={"NUMBER": str(int(signal.SIGUSR1))})
    assert stopped.returncode == (EXIT_STOPPED if world_size == 1 else 1), stopped.stdout
    assert f"stopped by SIGUSR1 after step {world_size}" in stopped.stdout, "several ranks know it a step later"
    (point,) = tmp_path.glob("runs/*/resume/epoch_*")
    assert point.name.endswith(f"step_{world_size:08d}")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_sigusr1_while_torch_is_imported_is_heeded_too(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(
        "import os, signal, sys\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
        "del sys.modules['torch']\n"
        f"sys.path.remove({str(tmp_path)!r})\n"
        "import torch\n"
    )
    paths = os.pathsep.join([str(tmp_path), clean_environment()["PYTHONPATH"]])
    stopped = run([*TRAIN, "--runs_dir", tmp_path / "runs"], env={"PYTHONPATH": paths})
    assert "stopped by SIGUSR1 after step 1;" in stopped.stdout, stopped.stdout
    assert stopped.returncode == EXIT_STOPPED


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_ranks_stop_together_at_the_time_limit_and_continue(tmp_path: Path) -> None:
    launcher = [*torchrun(2), *TRAIN[1:], "--num_epochs", "400", "--runs_dir", tmp_path]
    stopped = run([*launcher, "--stop_after_minutes", "0.05"])
    assert stopped.returncode != 0
    assert "stopped by the time limit" in stopped.stdout, stopped.stdout
    (run_dir,) = tmp_path.iterdir()
    status = json.loads((run_dir / "status.json").read_text())
    (point,) = (path.name for path in (run_dir / "resume").glob("epoch_*"))
    assert point.endswith(f"step_{status['steps_done']:08d}")
    num_epochs = str(status["epochs_done"] + 1)
    output = succeed([*launcher, "--num_epochs", num_epochs, "--resume", run_dir])
    assert f"step {status['steps_done']}" in output


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ranks_save_once_when_the_time_for_a_resume_point_has_come(tmp_path: Path) -> None:
    """The vote is known one step later: a wish that was repeated meanwhile must not save a second time."""
    flags = [
        "--num_points",
        "30000",
        "--num_epochs",
        "1",
        "--resume_every_minutes",
        "0.02",
        "--keep_resume_points",
        "999",
    ]
    succeed([*torchrun(2), *TRAIN[1:], *flags, "--runs_dir", tmp_path])
    points = sorted(tmp_path.glob("*/resume/epoch_0000-*"))
    steps = [int(point.name.rsplit("_", 1)[1]) for point in points]
    assert steps, "no resume point within the epoch"
    assert all(after - before > 1 for before, after in itertools.pairwise(steps)), steps
