"""Unit: ranks as launchers name them. The variables of Slurm are those of a real 22.05, of Open MPI those of 4.1."""

import base64
import os
import subprocess
import sys

import pytest
from launching import ROOT, clean_environment

from ds_trainer.errors import SettingsError
from ds_trainer.rank_variables import (
    ANY_PORT,
    export_rank_variables,
    hosts_of_ranks,
    malformed_variables,
    ranks_on_this_node,
)

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
}
MPICH = {"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"}
BATCH_SCRIPT = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_NNODES": "2",
    "SLURM_NTASKS": "8",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_TASKS_PER_NODE": "4(x2)",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
SRUN = BATCH_SCRIPT | {
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}
STARTERS = pytest.mark.parametrize("starter", [OPEN_MPI, MPICH, SRUN], ids=["Open MPI", "MPICH", "srun"])


def exported(environ: dict[str, str]) -> list[str]:
    export_rank_variables(environ)
    return [environ[name] for name in NAMES]


def test_plain_start_is_one_rank_on_a_free_port() -> None:
    assert exported({"PATH": "/bin"}) == ["0", "1", "0", "127.0.0.1", ANY_PORT]


@pytest.mark.parametrize("launchers_own", [{"LOCAL_SIZE": "2", "CROSS_RANK": "0"}, {"TORCHELASTIC_RUN_ID": "none"}])
def test_what_deepspeed_and_torchrun_set_is_left_as_it_is(launchers_own: dict[str, str]) -> None:
    environ = dict(zip(NAMES, ("3", "4", "1", "node-1", "29501"), strict=True)) | launchers_own | SRUN | OPEN_MPI
    before = dict(environ)
    export_rank_variables(environ)
    assert environ == before


@STARTERS
def test_ranks_of_other_launchers(starter: dict[str, str]) -> None:
    assert exported(starter | {"MASTER_ADDR": "node-1"}) == ["5", "8", "1", "node-1", "29500"]
    assert exported(starter | {"MASTER_ADDR": "node-1", "MASTER_PORT": "1234"})[-1] == "1234"


@STARTERS
def test_ranks_of_several_nodes_need_an_address(starter: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="found 8 ranks on several nodes and no MASTER_ADDR"):
        export_rank_variables(dict(starter))


@pytest.mark.parametrize(
    "starter",
    [
        OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "8"},
        MPICH | {"MPI_LOCALNRANKS": "8"},
        SRUN | {"SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_TASKS_PER_NODE": "8"},
    ],
    ids=["Open MPI", "MPICH", "srun"],
)
def test_ranks_of_one_node_need_no_address(starter: dict[str, str]) -> None:
    assert exported(starter) == ["5", "8", "1", "127.0.0.1", "29500"]


def test_starter_of_mpi_within_slurm_is_not_mistaken_for_a_rank() -> None:
    """mpirun starts one process of its own on each node as a task of Slurm; ranks inherit the task's variables."""
    of_a_node = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_PROCID": "1"}
    assert exported(SRUN | of_a_node | OPEN_MPI | {"MASTER_ADDR": "node-1"})[:3] == ["5", "8", "1"]


def test_batch_script_is_one_rank_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Seven others that it could wait for are never started."""
    assert exported(dict(BATCH_SCRIPT))[:2] == ["0", "1"]
    assert caplog.messages == ["this job of Slurm has 8 tasks, and one process trains: put srun before it to use all"]


@pytest.mark.parametrize(
    "environ",
    [
        SRUN | {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1"},
        {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2"},
        OPEN_MPI | dict.fromkeys(("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"), "1"),
    ],
    ids=["srun --ntasks=1", "salloc", "mpirun -n 1"],
)
def test_one_task_is_a_plain_start(environ: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    rank, world_size, _, address, port = exported(dict(environ))
    assert (rank, world_size, address) == ("0", "1", "127.0.0.1")
    assert port == ANY_PORT, "two such jobs on one node must not meet"
    assert not caplog.messages


def test_one_rank_a_node_needs_no_local_rank() -> None:
    """As clusters start it that know nothing of local ranks: dropping the others would train each node on its own."""
    environ = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "node-1", "MASTER_PORT": "23456"}
    assert exported(environ) == ["1", "2", "0", "node-1", "23456"]
    with pytest.raises(SettingsError, match="MASTER_ADDR"):
        export_rank_variables({"RANK": "1", "WORLD_SIZE": "2"})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, 1),
        ({"LOCAL_SIZE": "2"}, 2),
        ({"LOCAL_WORLD_SIZE": "3"}, 3),
        (OPEN_MPI, 4),
        (MPICH, 4),
        (SRUN, 4),
        (SRUN | {"SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "SLURM_NODEID": "1"}, 2),
        (SRUN | {"SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "SLURM_NODEID": "2"}, 1),
        (BATCH_SCRIPT, 1),
    ],
)
def test_ranks_on_this_node(environ: dict[str, str], expected: int) -> None:
    assert ranks_on_this_node(environ) == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [(b'{"node-1": [0, 1], "node-2": [0]}', ["node-1", "node-1", "node-2"]), (b"no JSON", []), (None, [])],
)
def test_hosts_are_those_that_deepspeed_told_its_launcher(
    monkeypatch: pytest.MonkeyPatch, told: bytes | None, expected: list[str]
) -> None:
    words = [] if told is None else [f"--world_info={base64.urlsafe_b64encode(told).decode()}"]
    with subprocess.Popen([sys.executable, "-c", "print(flush=True), input()", *words], stdin=-1, stdout=-1) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdout.readline()
        monkeypatch.setattr(os, "getppid", lambda: parent.pid)
        assert hosts_of_ranks() == expected
        parent.communicate(b"\n")


PORT_OF_A_SERVICE = {"MASTER_PORT": "tcp://10.0.0.1:29500"}  # which Kubernetes sets where one is called master


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, []),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_PORT": "29500"}, []),
        ({"RANK": "", "WORLD_SIZE": "", "LOCAL_RANK": "-1"}, ["RANK", "WORLD_SIZE", "LOCAL_RANK"]),
        ({"RANK": "0", "WORLD_SIZE": "2"} | PORT_OF_A_SERVICE, ["MASTER_PORT"]),
        (SRUN | PORT_OF_A_SERVICE, ["MASTER_PORT"]),
        (PORT_OF_A_SERVICE, []),
        (BATCH_SCRIPT | PORT_OF_A_SERVICE, []),
    ],
)
def test_variables_that_are_no_numbers_are_named(environ: dict[str, str], named: list[str]) -> None:
    assert [problem.partition(":")[0] for problem in malformed_variables(environ)] == named


@pytest.mark.slow
def test_empty_rank_ends_training_in_one_line() -> None:
    """As `docker run -e RANK=$RANK` sets it."""
    train = [sys.executable, "-m", "ds_trainer", "--deepspeed_config", "ds_configs/bf16.json", "--task", "toy"]
    environment = clean_environment({"RANK": ""})
    ended = subprocess.run(train, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    told = (
        "error: RANK: found '' in the environment, expected a whole number, as launchers set it; export that, or unset"
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(told)
    assert len(ended.stderr.splitlines()) == 1
