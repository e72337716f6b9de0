"""A run directory that cannot be written while training goes on: nothing good is lost, and what is missing is told.

The disk is a folder that becomes a file, which no one can write into, root neither; a disk of limited size is in the
soak.
"""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from launching import ROOT, clean_environment, run, train_here
from matplotlib.figure import Figure

from ds_trainer.checkpoint import load_checkpoint, write_checkpoint
from ds_trainer.job import main

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TRAIN = [
    sys.executable, "launch/train.py", "--deepspeed_config", "ds_configs/bf16.json", "--task", "toy",
    "--num_points", "3000", "--num_epochs", "8", "--resume_every_steps", "10",
]  # fmt: skip


@contextmanager
def standing_still(process: subprocess.Popen[str]) -> Iterator[None]:
    """Stop the process, and let it go on afterwards."""
    process.send_signal(signal.SIGSTOP)
    yield
    process.send_signal(signal.SIGCONT)


def train_meanwhile(
    runs_dir: Path, meanwhile: Callable[[Path], None], when_told: Callable[[], None] = lambda: None
) -> tuple[int, str]:
    """Train, and get in its way. Status and output.

    Args:
        meanwhile: called with the run directory once the second epoch goes on; training stands still for it.
        when_told: called once the record of the epochs could not be written; training stands still for it too.
    """
    process = subprocess.Popen(
        [*TRAIN, "--runs_dir", str(runs_dir)],
        cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 90
        while not list(runs_dir.glob("*/resume/epoch_0001-*")):
            assert time.monotonic() < deadline, "no resume point in the second epoch"
            assert process.poll() is None, "ended early"
            time.sleep(0.005)
        (run_dir,) = runs_dir.iterdir()
        with standing_still(process):
            meanwhile(run_dir)
        lines = []
        for line in process.stdout or ():
            if "metrics.jsonl: cannot be written" in line and not any("metrics.jsonl:" in told for told in lines):
                with standing_still(process):
                    when_told()
            lines.append(line)
        process.wait(timeout=120)
    finally:
        process.kill()
        process.communicate()
    output = "".join(lines)
    assert "Traceback" not in output, output
    return process.returncode, output


def test_place_of_resume_points_is_lost(tmp_path: Path) -> None:
    """Training ends well but for the resume points, and says so; put right, the run is continued."""

    def lose(run_dir: Path) -> None:
        (run_dir / "resume").rename(tmp_path / "resume")
        (run_dir / "resume").write_text("no folder")

    status, output = train_meanwhile(tmp_path / "runs", lose)
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert status == 2, output
    assert output.count("resume point not written") == 1, "told once, not at every attempt"
    assert "training goes on" in output
    assert "epoch   8/8" in output
    last_line = output.strip().splitlines()[-1]
    assert last_line.startswith(f"error: {run_dir / 'resume'}"), output
    assert json.loads((run_dir / "status.json").read_text())["status"] == "failed"
    (run_dir / "resume").unlink()
    (tmp_path / "resume").rename(run_dir / "resume")
    assert "continuing" in train_here(*TRAIN[2:], "--runs_dir", tmp_path / "runs", "--resume", "must")
    assert json.loads((run_dir / "status.json").read_text())["status"] == "finished"


def test_run_directory_is_gone_for_a_while(tmp_path: Path) -> None:
    """As a network disk is that comes back: everything is written in the end."""

    hidden, places = tmp_path / "hidden", []

    def hide(run_dir: Path) -> None:
        places.append(run_dir)
        run_dir.rename(hidden)

    def come_back() -> None:
        hidden.rename(places[0])

    status, output = train_meanwhile(tmp_path / "runs", hide, when_told=come_back)
    assert status == 0, output
    assert "metrics.jsonl: cannot be written" in output
    (run_dir,) = (tmp_path / "runs").iterdir()
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records if record["kind"] == "epoch"] == list(range(8))
    steps = [record["step"] for record in records if record["kind"] == "step"]
    assert steps == sorted(set(steps))
    assert json.loads((run_dir / "status.json").read_text())["status"] == "finished"


def test_disk_that_fills_up_while_plots_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The model is whole and the message says how to have them drawn."""

    def fill_up(figure: Figure, file: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    flags = [*TRAIN[2:], "--num_points", "300", "--num_epochs", "1", "--runs_dir", str(tmp_path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", fill_up)
        assert main(flags) == 2
    (run_dir,) = tmp_path.iterdir()
    told = f"{run_dir / 'diagnostics' / 'curves.png'}: cannot be written (No space left on device); make room there"
    remedy = f"the model is whole, in best.pth; the same command with --resume {run_dir} draws again"
    for told_there in (
        capsys.readouterr().out.splitlines()[-1],
        json.loads((run_dir / "status.json").read_text())["reason"],
    ):
        assert told in told_there
        assert remedy in told_there
    weights = load_checkpoint(run_dir / "best.pth")["state_dict"]
    assert main([*flags, "--resume", str(run_dir)]) == 0
    assert json.loads((run_dir / "status.json").read_text())["status"] == "finished"
    assert all(
        torch.equal(weights[name], again) for name, again in load_checkpoint(run_dir / "best.pth")["state_dict"].items()
    )
    assert {"curves.png", "answers.csv"} <= {path.name for path in (run_dir / "diagnostics").iterdir()}


def test_best_checkpoint_that_was_lost_or_is_older_than_it_must_be_is_replaced(tmp_path: Path) -> None:
    runs_dir = tmp_path / "runs"
    status, output = train_meanwhile(runs_dir, lambda run_dir: None)
    assert status == 0, output
    (run_dir,) = runs_dir.iterdir()
    (run_dir / "best.pth").write_bytes((run_dir / "best.pth").read_bytes()[:500])
    (run_dir / ".best.pth.another-host.41").write_bytes(b"half")
    for num_epochs, found in ((9, "damaged"), (10, "found the model of epoch 1, expected that of 9")):
        output = train_here(*TRAIN[2:], "--runs_dir", runs_dir, "--resume", run_dir, "--num_epochs", str(num_epochs))
        assert re.search(rf"refused .*best\.pth: {found}", output), output
        assert "the next epoch's model takes the place of the best" in output
        assert f"best checkpoint (epoch {num_epochs})" in output
        assert list(run_dir.glob(".*")) == [run_dir / ".lock"], "what a killed process had left"
        write_checkpoint(run_dir / "best.pth", load_checkpoint(run_dir / "best.pth") | {"epoch": 0})


def test_nowhere_to_put_temporary_files() -> None:
    """As in a container whose disk is read-only, /tmp too: here no file may grow at all."""
    finished = run(["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *TRAIN, "--dry_run"])
    assert finished.returncode == 2, finished.stdout
    assert "error: No usable temporary directory found in [" in finished.stdout
    assert "mount one at /tmp, or export TMPDIR=FOLDER" in finished.stdout
    assert "Traceback" not in finished.stdout
