"""Each documented way to start on several hosts works, and gives the numbers of one host with as many ranks."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from multinode.conftest import OneHostNumbers
from multinode.lab import Lab
from multinode.needs import needs
from multinode.slurm import PROGRAMS, Slurm
from multinode.training import ROOT, Training, numbers_in, records_in

pytestmark = [pytest.mark.multinode, pytest.mark.slow, pytest.mark.timeout(300)]


def assert_like_one_host(training: Training, one_host_numbers: OneHostNumbers, world_size: int = 2) -> None:
    """Bit for bit, and over the cables."""
    training.succeed()
    numbers = numbers_in(training.runs_dir)
    assert len(numbers) > 2
    assert numbers == one_host_numbers(world_size)
    assert training.lab.num_bytes(1) > 100_000


def test_pdsh(training: Training, one_host_numbers: OneHostNumbers) -> None:
    needs("pdsh")
    training.deepspeed()
    assert_like_one_host(training, one_host_numbers)


def test_three_hosts(tmp_path: Path, one_host_numbers: OneHostNumbers) -> None:
    with Lab(3) as lab:
        training = Training(lab, tmp_path / "work")
        training.ranks()
        assert_like_one_host(training, one_host_numbers, world_size=3)


def test_without_ssh(training: Training, one_host_numbers: OneHostNumbers) -> None:
    for number, host in enumerate(training.lab.hosts):
        flags = ["--no_ssh", "--node_rank", str(number), "--master_addr", "node-0"]
        training.start(["deepspeed", "--hostfile", training.lab.hostfile, *flags, *training.train()], host)
    assert_like_one_host(training, one_host_numbers)


def test_torchrun_static(training: Training, one_host_numbers: OneHostNumbers) -> None:
    for number, host in enumerate(training.lab.hosts):
        flags = ["--nnodes", "2", "--nproc_per_node", "1", "--node_rank", str(number), "--master_addr", "node-0"]
        training.start(["torchrun", *flags, "--master_port", "29500", *training.train()], host)
    assert_like_one_host(training, one_host_numbers)


def test_torchrun_rendezvous(training: Training, one_host_numbers: OneHostNumbers) -> None:
    for host in training.lab.hosts:
        flags = ["--nnodes", "2", "--nproc_per_node", "1", "--rdzv_backend", "c10d", "--rdzv_endpoint", "node-0:29400"]
        training.start(["torchrun", *flags, "--rdzv_id", "run-1", *training.train()], host)
    assert_like_one_host(training, one_host_numbers)


def test_open_mpi(two_hosts: Lab, tmp_path: Path, one_host_numbers: OneHostNumbers) -> None:
    needs("mpirun:openmpi-bin")
    training = Training(two_hosts, tmp_path / "work", {"MASTER_ADDR": "node-0"})
    training.deepspeed(launcher=["--launcher", "openmpi", "--launcher_args=--allow-run-as-root"])
    assert_like_one_host(training, one_host_numbers)


@pytest.mark.parametrize("master", ["node-0", "192.0.2.10"])
def test_hosts_whose_own_name_means_loopback(master: str, tmp_path: Path, one_host_numbers: OneHostNumbers) -> None:
    """As Debian sets it up; gloo would wait there for the others, who cannot come."""
    with Lab(2, is_own_name_loopback=True) as lab:
        training = Training(lab, tmp_path / "work")
        training.ranks(master=master)
        assert_like_one_host(training, one_host_numbers)


def test_slurm_stops_when_told_queues_again_and_continues(
    two_hosts: Lab, tmp_path: Path, one_host_numbers: OneHostNumbers
) -> None:
    """`launch/slurm.sbatch` as it is; the signal is the one that comes two minutes before the time limit."""
    needs(*PROGRAMS)
    slurm = Slurm(two_hosts)
    for name in ("launch", "ds_configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    flags = ["--deepspeed_config", "ds_configs/bf16.json", "--task", "toy", "--record_every_steps", "1"]
    job = slurm.call("sbatch", "--parsable", "launch/slurm.sbatch", *flags, "--num_epochs", "12", cwd=tmp_path).strip()
    runs_dir, log = tmp_path / "runs" / f"slurm-{job}", tmp_path / f"slurm-{job}.log"

    def wait_for(what: str, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not is_so():
            said = log.read_text()[-5000:] if log.exists() else ""
            seen = f"{what}: {slurm.call('scontrol', 'show', 'job', job)}\n{said}\n{slurm.logs()}"
            assert time.monotonic() < deadline, seen
            time.sleep(0.1)

    wait_for("second epoch", lambda: any(record["epoch"] == 1 for record in records_in(runs_dir)))
    slurm.call("scancel", "--signal=USR1", job)
    wait_for("next turn", lambda: slurm.call("squeue", "--noheader", "--format=%t").strip() == "PD")
    time.sleep(2)  # a job that starts again in the second in which it was ended is refused (slurmd 22.05)
    slurm.call("scontrol", "update", f"JobId={job}", "StartTime=now")  # Slurm would wait for two minutes
    wait_for("continuation", lambda: "continuing runs/" in log.read_text())
    wait_for("end", lambda: slurm.call("squeue", "--noheader").strip() == "")
    assert "JobState=COMPLETED" in slurm.call("scontrol", "show", "job", job)
    (run_dir,) = runs_dir.iterdir()
    assert json.loads((run_dir / "status.json").read_text())["status"] == "finished"
    assert "stopped by SIGUSR1" in log.read_text()
    expected = [numbers for numbers in one_host_numbers(2) if numbers["kind"] != "test"]
    assert numbers_in(runs_dir)[: len(expected)] == expected
    assert numbers_in(runs_dir)[-1]["kind"] == "test"
