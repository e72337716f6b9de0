"""A run whose launcher was ended stops, as one that was asked to; what else is above a rank may end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from launching import ROOT, clean_environment, deepspeed, free_port, torchrun

from ds_trainer.launcher_watch import is_runner


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["/home/me/.venv/bin/python3", "/home/me/.venv/bin/deepspeed", "launch/train.py"], True),
        (["python3.12", "-u", "/opt/bin/ds", "--num_gpus", "2", "train.py"], True),
        (["python", "-m", "deepspeed.launcher.runner", "train.py"], True),
        (["bash", "run.sh", "/data/deepspeed"], False),
        (["bash", "/home/me/bin/deepspeed", "train.py"], False),
        (["python", "start.py", "--backend", "deepspeed"], False),
        (["pdsh", "-S", "-w", "a,b", "python", "-m", "deepspeed.launcher.launch"], False),
        (["sshd: me@notty"], False),
        (["python"], False),
        ([], False),
    ],
)
def test_runner_is_told_by_its_command_line(words: list[str], expected: bool) -> None:
    assert is_runner(words) == expected


def _wait_for_training(process: subprocess.Popen[str], folder: Path) -> Path:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for path in folder.glob("runs/*/metrics.jsonl"):
            if '"epoch": 2' in path.read_text():
                return path.parent
        time.sleep(0.05)
    _end_all_in(folder)
    raise AssertionError(process.communicate()[0])


def _status(run_dir: Path) -> dict[str, object]:
    return dict(json.loads((run_dir / "status.json").read_text()))


@contextlib.contextmanager
def _launched(
    command: list[str], folder: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    flags = ["--deepspeed_config", str(ROOT / "ds_configs" / "bf16.json"), "--task", "toy", "--num_epochs", "999"]
    with subprocess.Popen(
        [*command, str(ROOT / "launch" / "train.py"), *flags, "--record_every_steps", "1"],
        cwd=folder,
        env=clean_environment(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            _end_all_in(folder)


def _end_all_in(folder: Path) -> None:
    """Ranks that run on have no launcher any more by which to find them, and may have a session of their own."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(folder.resolve()):
                process.kill()


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_run_on_one_host_stops_with_its_launcher(tmp_path: Path, number: signal.Signals) -> None:
    """DeepSpeed's runner hands no signal on to launch.py, which stays, and so did training, to its end."""
    with _launched(deepspeed(2), tmp_path) as runner:
        run_dir = _wait_for_training(runner, tmp_path)
        below = psutil.Process(runner.pid).children(recursive=True)
        assert len(below) == 3, below
        runner.send_signal(number)
        assert not psutil.wait_procs(below, timeout=40)[1], "they run on"
    status = _status(run_dir)
    assert status["status"] == "stopped"
    assert str(status["reason"]).startswith("the end of its launcher on ")


TORCH_WHOSE_IMPORT_ENDS_THE_LAUNCHER = """
import os, sys, time
import psutil

if "RANK" in os.environ:
    above = int(os.environ["ABOVE"])
    child, launcher = [psutil.Process(), *psutil.Process().parents()][above : above + 2]
    launcher.kill()
    while child.ppid() == launcher.pid:
        time.sleep(0.01)
del sys.modules["torch"]
sys.path.remove({folder!r})
import torch
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("launcher", "above"), [(deepspeed(1), 1), (torchrun(1), 0)])
def test_run_stops_whose_launcher_ended_while_it_imported(tmp_path: Path, launcher: list[str], above: int) -> None:
    (tmp_path / "torch.py").write_text(TORCH_WHOSE_IMPORT_ENDS_THE_LAUNCHER.format(folder=str(tmp_path)))
    paths = os.pathsep.join([str(tmp_path), clean_environment()["PYTHONPATH"]])
    with _launched(launcher, tmp_path, {"PYTHONPATH": paths, "ABOVE": str(above)}) as job:
        output, _ = job.communicate(timeout=180)  # until the last process that has its end of the pipe has ended
    assert "stopped by the end of its launcher on " in output


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_run_goes_on_after_the_shell_that_started_its_launch_py(tmp_path: Path) -> None:
    """As nohup, sshd or Slurm's scripts may leave it behind."""
    told = "eyJsb2NhbGhvc3QiOiBbMF19"  # {"localhost": [0]}
    launch = f"{sys.executable} -u -m deepspeed.launcher.launch --world_info={told} --master_port={free_port()}"
    with _launched(["sh", "-c", f'{launch} "$@" & read go; exit 0', "deepspeed"], tmp_path) as shell:
        run_dir = _wait_for_training(shell, tmp_path)
        below = psutil.Process(shell.pid).children(recursive=True)
        shell.kill()
        shell.wait(30)
        time.sleep(4)
        assert all(process.is_running() for process in below)
        assert _status(run_dir)["status"] == "running"
