"""Unit: ranks as launchers name them, and collectives of a process that is alone."""

import socket
from pathlib import Path

import pytest
import torch
from torch.distributed import distributed_c10d

from ds_trainer import distributed
from ds_trainer.distributed import export_rank_variables
from ds_trainer.errors import CheckpointError, SettingsError

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
}
SLURM = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_NNODES": "2"}


def exported(environ: dict[str, str]) -> list[str]:
    export_rank_variables(environ)
    return [environ[name] for name in NAMES]


def test_plain_start_is_one_rank_on_a_free_port() -> None:
    rank, world_size, local_rank, address, port = exported({"PATH": "/bin"})
    assert (rank, world_size, local_rank, address) == ("0", "1", "0", "127.0.0.1")
    with socket.socket() as probe:
        probe.bind((address, int(port)))


@pytest.mark.parametrize("launchers_own", [{"LOCAL_SIZE": "2", "CROSS_RANK": "0"}, {"TORCHELASTIC_RUN_ID": "none"}])
def test_what_deepspeed_and_torchrun_set_is_left_as_it_is(launchers_own: dict[str, str]) -> None:
    environ = dict(zip(NAMES, ("3", "4", "1", "node-1", "29501"), strict=True)) | launchers_own | SLURM | OPEN_MPI
    before = dict(environ)
    export_rank_variables(environ)
    assert environ == before


@pytest.mark.parametrize("launcher", [OPEN_MPI, SLURM], ids=["Open MPI", "Slurm"])
def test_ranks_of_other_launchers(launcher: dict[str, str]) -> None:
    assert exported(launcher | {"MASTER_ADDR": "node-1"}) == ["5", "8", "1", "node-1", "29500"]
    assert exported(launcher | {"MASTER_ADDR": "node-1", "MASTER_PORT": "1234"})[-1] == "1234"


@pytest.mark.parametrize(
    "launcher",
    [OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, SLURM | {"SLURM_NNODES": "1"}],
    ids=["Open MPI", "Slurm"],
)
def test_ranks_of_one_node_need_no_address(launcher: dict[str, str]) -> None:
    assert exported(launcher) == ["5", "8", "1", "127.0.0.1", "29500"]


@pytest.mark.parametrize("launcher", [OPEN_MPI, SLURM], ids=["Open MPI", "Slurm"])
def test_ranks_of_several_nodes_need_an_address(launcher: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="export the host name of the node of rank 0"):
        export_rank_variables(dict(launcher))


def test_single_slurm_task_is_a_plain_start() -> None:
    """As in `srun --ntasks=1 deepspeed ...`, and in a shell on a node of a job."""
    assert exported({"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0"})[:2] == ["0", "1"]
    assert exported({"SLURM_NTASKS": "8"})[:2] == ["0", "1"]
    assert exported({"SLURM_PROCID": "3"})[:2] == ["0", "1"]


def test_one_rank_a_node_needs_no_local_rank() -> None:
    """As clusters start it that know nothing of local ranks: dropping the others would train each node on its own."""
    environ = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "node-1", "MASTER_PORT": "23456"}
    assert exported(environ) == ["1", "2", "0", "node-1", "23456"]
    with pytest.raises(SettingsError, match="MASTER_ADDR"):
        export_rank_variables({"RANK": "1", "WORLD_SIZE": "2"})


def test_ranks_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(NAMES, ("3", "4", "1", "node-1", "29501"), strict=True):
        monkeypatch.setenv(name, value)
    assert (distributed.rank(), distributed.world_size(), distributed.local_rank()) == (3, 4, 1)
    assert not distributed.is_master()
    monkeypatch.setenv("RANK", "0")
    assert distributed.is_master()


def test_collectives_of_one_rank() -> None:
    total = torch.tensor([1.0, 2.0])
    assert distributed.all_sum(total) is total
    assert total.tolist() == [1, 2]
    assert distributed.gathered("mine") == ["mine"]
    assert distributed.agreed(lambda: Path("runs")) == Path("runs")
    distributed.barrier()
    distributed.leave()


def test_agreed_raises_what_was_raised() -> None:
    def fail() -> None:
        raise CheckpointError(["one", "two"])

    with pytest.raises(CheckpointError) as caught:
        distributed.agreed(fail)
    assert caught.value.problems == ["one", "two"]


def test_only_the_master_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    decisions = []
    distributed.agreed(lambda: decisions.append("decided"))
    assert decisions == []


def test_process_group_of_one_rank_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    export_rank_variables()
    for name in ("default_pg_timeout", "default_pg_nccl_timeout"):  # `join` changes these for the whole process
        monkeypatch.setattr(distributed_c10d, name, getattr(distributed_c10d, name))
    distributed.join(timeout_s=20)
    try:
        assert distributed_c10d.default_pg_timeout.total_seconds() == 20
        assert distributed.all_sum(torch.tensor([1.0])).tolist() == [1]
        assert distributed.gathered({"a": 1}) == [{"a": 1}]
        assert distributed.agreed(lambda: "chosen") == "chosen"
        distributed.barrier()
    finally:
        distributed.leave()


def test_vote_of_one_rank_is_its_own_wish() -> None:
    vote = distributed.Vote()
    assert [vote.cast(wish) for wish in (0, 2, 1)] == [0, 2, 1]
