"""launch/slurm.sbatch with stand-ins for Slurm's programs: when a job queues again. Slurm itself: tests/multinode."""

import json
import subprocess
from pathlib import Path

import pytest
from launching import ROOT, clean_environment

STOPPED = {"status": "stopped", "reason": "SIGUSR1", "steps_done": 7}


def job(folder: Path, srun: str, timeout_s: float = 20) -> tuple[int, str]:
    """A turn of job 41 in `folder`: the exit status, and what scontrol was asked to do at its end."""
    for name, script in {"srun": srun, "scontrol": 'echo "$1 $2" >> asked; [ "$1" != show ] || echo node-0'}.items():
        path = folder / "programs" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)
    environment = clean_environment({"SLURM_JOB_ID": "41", "SLURM_JOB_NODELIST": "node-0"})
    environment["PATH"] = f"{folder / 'programs'}:{environment['PATH']}"
    done = subprocess.run(["bash", ROOT / "launch" / "slurm.sbatch"], cwd=folder, env=environment, timeout=timeout_s)
    return done.returncode, (folder / "asked").read_text().splitlines()[-1]


def writing(**status: object) -> str:
    return f"mkdir -p runs/slurm-41/run && echo '{json.dumps(status)}' > runs/slurm-41/run/status.json; exit 1"


def test_stopped_job_queues_again_until_it_is_finished(tmp_path: Path) -> None:
    for steps_done in (7, 14):
        assert job(tmp_path, writing(**STOPPED | {"steps_done": steps_done})) == (1, "requeue 41")
    assert job(tmp_path, writing(status="finished"))[0] == 0


@pytest.mark.parametrize("srun", ["exit 2", writing(status="failed"), writing(status="running")])
def test_job_that_fails_does_not_queue_again(tmp_path: Path, srun: str) -> None:
    """Also where it fails before it trains, and status.json says stopped as it did: it would fail for ever."""
    assert job(tmp_path, srun) == (1, "show hostnames")
    (tmp_path / "runs").mkdir(exist_ok=True)
    assert job(tmp_path, writing(**STOPPED)) == (1, "requeue 41")
    assert job(tmp_path, srun) == (1, "show hostnames")


@pytest.mark.slow
def test_job_trains_in_a_folder_that_is_no_checkout(tmp_path: Path) -> None:
    """As where an administrator has installed the package, and nobody else may write into its folder."""
    flags = "--deepspeed_config ds_configs/bf16.json --task toy --num_points 300 --num_epochs 1"
    assert job(tmp_path, f'"$@" {flags}', timeout_s=100) == (0, "show hostnames")
    (status,) = tmp_path.glob("runs/slurm-41/*/status.json")
    assert json.loads(status.read_text())["status"] == "finished"
