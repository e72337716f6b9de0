"""Unit: who this process is, and collectives of a process that is alone."""

import os
import socket
from pathlib import Path

import psutil
import pytest
import torch
from torch.distributed import distributed_c10d

from ds_trainer import distributed
from ds_trainer.errors import CheckpointError, MeetingError
from ds_trainer.rank_variables import export_rank_variables

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


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
    distributed.leave()


def test_agreed_raises_what_was_raised() -> None:
    def fail() -> None:
        raise CheckpointError(["one", "two"])

    with pytest.raises(CheckpointError) as caught:
        distributed.agreed(fail)
    assert caught.value.problems == ["one", "two"]


@pytest.mark.parametrize("is_turned", [False, True])
def test_numbers_of_the_master_arrive_in_any_layout(monkeypatch: pytest.MonkeyPatch, is_turned: bool) -> None:
    sent = torch.arange(6.0).view(2, 3)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(
        torch.distributed, "broadcast", lambda received, src: received.copy_(sent.view(-1).view(torch.uint8))
    )
    own = torch.zeros(3, 2).t() if is_turned else torch.zeros(2, 3)
    distributed.from_master(own)
    assert torch.equal(own, sent)


def test_only_the_master_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    decisions = []
    distributed.agreed(lambda: decisions.append("decided"))
    assert decisions == []


@pytest.fixture
def kept_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """`join` changes these for the whole process."""
    for name in ("default_pg_timeout", "default_pg_nccl_timeout"):
        monkeypatch.setattr(distributed_c10d, name, getattr(distributed_c10d, name))


@pytest.mark.parametrize(("local_rank", "ranks_told"), [("0", "4"), ("3", "4"), ("3", None)])
@pytest.mark.usefixtures("kept_timeouts")
def test_fewer_gpus_than_ranks_are_told_before_cuda_stumbles(
    monkeypatch: pytest.MonkeyPatch, local_rank: str, ranks_told: str | None
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    for name, value in zip(NAMES, (local_rank, "4", local_rank, "127.0.0.1", "29500"), strict=True):
        monkeypatch.setenv(name, value)
    if ranks_told is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks_told)
    with pytest.raises(MeetingError, match=f"^rank {local_rank} on .*GPUs for 4 ranks: found 1,.*--gpus-per-node"):
        distributed.join(timeout_s=20)


@pytest.mark.usefixtures("kept_timeouts")
def test_busy_port_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        for name, value in zip(NAMES, ("0", "2", "0", "127.0.0.1", port), strict=True):
            monkeypatch.setenv(name, value)
        with pytest.raises(MeetingError, match=f"^rank 0: 127.0.0.1:{port}: cannot listen .* `deepspeed --master_port"):
            distributed.join(timeout_s=20)


@pytest.mark.usefixtures("kept_timeouts")
@pytest.mark.parametrize("port", [None, "29500"], ids=["plain start", "launcher"])
def test_a_rank_that_is_alone_listens_for_nobody(monkeypatch: pytest.MonkeyPatch, port: str | None) -> None:
    """Torch's store takes what anybody sends, on all addresses of the host. So a busy port is none of its business."""
    for name, value in zip(NAMES, ("0", "1", "0", "127.0.0.1", port), strict=True) if port else ():
        monkeypatch.setenv(name, value)
    export_rank_variables()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        if port:
            monkeypatch.setenv("MASTER_PORT", str(other.getsockname()[1]))
        distributed.join(timeout_s=20)
        try:
            opened = [own.laddr for own in psutil.Process().net_connections() if own.status == psutil.CONN_LISTEN]
            assert [place for place in opened if place.ip in ("::", "0.0.0.0")] == []
            assert distributed.gathered(3) == [3]
        finally:
            distributed.leave()


@pytest.mark.usefixtures("kept_timeouts")
def test_plain_start_loses_no_port_to_another_process() -> None:
    """One that takes a free port between the start and the meeting, and a second training of the same process."""
    for _ in range(2):
        export_rank_variables()
        with socket.socket() as other:
            other.bind(("127.0.0.1", int(os.environ["MASTER_PORT"])))
            other.listen()
            distributed.join(timeout_s=20)
            distributed.leave()


@pytest.mark.usefixtures("kept_timeouts")
def test_process_group_of_one_rank_gives_the_same() -> None:
    export_rank_variables()
    distributed.join(timeout_s=20)
    try:
        assert distributed_c10d.default_pg_timeout.total_seconds() == 20
        assert distributed.all_sum(torch.tensor([1.0])).tolist() == [1]
        assert distributed.gathered({"a": 1}) == [{"a": 1}]
        assert distributed.agreed(lambda: "chosen") == "chosen"
    finally:
        distributed.leave()


def test_vote_of_one_rank_is_its_own_wish() -> None:
    vote = distributed.Vote()
    assert [vote.cast(*wishes) for wishes in ((False, True), (True, False))] == [[False, True], [True, False]]
