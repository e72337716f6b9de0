"""The ranks of a job: who this process is, and the few collectives that training needs.

The only module that communicates. Everything else is written as if there were one rank, and asks here for sums or
for the master's choice. Works without DeepSpeed, so that evaluation needs none.
"""

import datetime
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store

from ds_trainer import gloo
from ds_trainer.errors import MeetingError
from ds_trainer.heap import keep_freed_memory
from ds_trainer.openmp import share_cores
from ds_trainer.rank_variables import export_rank_variables as export_rank_variables
from ds_trainer.rank_variables import ranks_on_this_node

T = TypeVar("T")

_num_meetings = 0  # the same on all ranks: what fails on one before they meet does not count


def rank() -> int:
    """This process's number among all ranks, 0 to world size - 1; known before the process group exists."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """This process's number among the ranks of its node, which is also the number of its device."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """The number of ranks in the job; known before the process group exists."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_master() -> bool:
    """Whether this rank speaks and writes for all."""
    return rank() == 0


def device() -> torch.device:
    """The device of this rank."""
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank())
    return torch.device("cpu")


def join(
    timeout_s: float, meeting_timeout_s: float = 600.0, on_meeting: Callable[[Store], None] = lambda store: None
) -> None:
    """Join the process group of all ranks. Collective.

    Args:
        timeout_s: seconds after which a collective that some rank does not reach raises, or, on GPUs, NCCL's watchdog
            ends the process: a backstop to the watch, which says which rank it was. Groups made later have it, too:
            given to the first alone it leaves ZeRO's at 30 minutes (seen with deepspeed 0.19.8).
        meeting_timeout_s: seconds for the host of the store to come up.
        on_meeting: called with the store in which the ranks meet, before there is a process group to hang in.

    Raises:
        MeetingError: this host has fewer GPUs than ranks, rank 0 is not found, or its port is another's.
    """
    global _num_meetings
    timeout = datetime.timedelta(seconds=timeout_s)
    for name in ("default_pg_timeout", "default_pg_nccl_timeout"):
        setattr(dist.distributed_c10d, name, timeout)
    if torch.cuda.is_available():
        _refuse_fewer_gpus_than_ranks()
        torch.cuda.set_device(device())
    else:
        keep_freed_memory()
    share_cores(ranks_on_this_node())
    if ranks_on_this_node() < world_size():
        gloo.choose_interface()
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun's store holds what earlier ones wrote, too
    store = PrefixStore(f"attempt_{attempt}/{_num_meetings}", _meeting_store(meeting_timeout_s))
    on_meeting(store)
    store.set_timeout(timeout)
    is_gpu, tell_traceback = torch.cuda.is_available(), sys.excepthook
    dist.init_process_group(
        "nccl" if is_gpu else "gloo",
        store=PrefixStore("default_pg", store),
        rank=rank(),
        world_size=world_size(),
        timeout=timeout,
        device_id=device() if is_gpu else None,
    )
    _num_meetings += 1
    if world_size() == 1:
        sys.excepthook = tell_traceback  # torch has it name the rank in each line, once for each time of joining


def _refuse_fewer_gpus_than_ranks() -> None:
    """Raise on each rank of a host that has not enough: CUDA would say "invalid device ordinal", and that of some."""
    num_ranks, num_gpus = max(ranks_on_this_node(), local_rank() + 1), torch.cuda.device_count()
    if num_ranks > num_gpus:
        raise MeetingError(
            f"rank {rank()} on {socket.gethostname()}: GPUs for {num_ranks} ranks: found {num_gpus}, expected one for "
            "each; start fewer ranks there, or let each see them all (Slurm: --gpus-per-node, not --gpus-per-task)"
        )


def _wait_for_master(address: str, port: int, timeout_s: float) -> None:
    """Wait until rank 0 listens: torch's own waiting writes thirty lines for each attempt without a route (2.13.0).

    Raises:
        MeetingError: it does not, in so many seconds.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection((address, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() >= deadline_s:
                raise MeetingError(
                    f"rank {rank()} on {socket.gethostname()} found no rank 0 at {address}:{port} within "
                    f"{timeout_s:.0f} s ({error}), expected one to listen there (MASTER_ADDR, MASTER_PORT); look "
                    "whether its host is up and its log has an error, and whether a firewall stands between"
                ) from None
        time.sleep(0.2)


def _meeting_store(timeout_s: float) -> Store:
    """The store at MASTER_ADDR and MASTER_PORT, which the master keeps unless `torchrun` does.

    As torch makes it, except that the master does not wait here until all have come, so that it can say who has not.
    A rank that is alone keeps it to itself: torch's listens on all addresses of the host, and takes what anybody sends.
    """
    if world_size() == 1:
        return dist.HashStore()  # type: ignore[attr-defined]  # as below
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    keeps_it = is_master() and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    if not is_master():
        _wait_for_master(address, port, timeout_s)
    try:
        return dist.TCPStore(  # type: ignore[attr-defined]  # documented, though its module does not list it
            address, port, world_size(), is_master=keeps_it, timeout=datetime.timedelta(seconds=timeout_s),
            wait_for_workers=False, multi_tenant=True,
        )  # fmt: skip
    except dist.DistNetworkError as error:
        problem = "cannot listen" if keeps_it else f"no answer from rank 0 within {timeout_s:.0f} s"
        raise MeetingError(
            f"rank {rank()}: {address}:{port}: {problem} ({str(error).splitlines()[0]}); expected a free port of the "
            "host of rank 0 that every host can reach: give each job of a host its own by `deepspeed --master_port "
            "29501 ...`, `torchrun --master_port 29501 ...`, or MASTER_PORT where srun or MPI starts the ranks"
        ) from None


def leave() -> None:
    """Leave the process group, if this process is in one."""
    if dist.is_initialized():
        gloo.wait_for_threads()
        dist.destroy_process_group()


def all_sum(tensor: Tensor) -> Tensor:
    """Replace `tensor` on every rank by its sum over the ranks, and return it. Collective."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def from_master(tensor: Tensor) -> Tensor:
    """Replace `tensor` on every rank by the master's, and return it. Collective.

    It is sent as bytes, since gloo knows few types, and may be laid out in any order.
    """
    if dist.is_initialized():
        numbers = tensor.contiguous()
        dist.broadcast(numbers.view(-1).view(torch.uint8), src=0)
        if not tensor.is_contiguous():
            tensor.copy_(numbers)
    return tensor


def to_master(part: Tensor) -> Tensor | None:
    """The parts of all ranks, of one size, joined on the master's CPU; alone as it is; elsewhere None. Collective."""
    if not dist.is_initialized() or world_size() == 1:
        return part
    sent = part.to(device())
    parts = [torch.empty_like(sent) for _ in range(world_size())] if is_master() else None
    dist.gather(sent, parts, dst=0)
    return None if parts is None else torch.cat([own.cpu() for own in parts])  # a GPU may not have room for it twice


def agreed(decide: Callable[[], T]) -> T:
    """What `decide` returns on the master rank, on every rank; what it raises there, too. Collective.

    So all ranks go on with the same value or all of them stop: one that raised alone would leave the others waiting.
    """
    box: list[Any] = [None, None]
    if is_master():
        try:
            box[0] = decide()
        except Exception as error:
            box[1] = error
    if dist.is_initialized():
        dist.broadcast_object_list(box, src=0, device=device())
    if box[1] is not None:
        raise box[1]
    value: T = box[0]
    return value


class Vote:
    """What any of the ranks wishes, known to all of them one step later, without waiting for the device or each other.

    Works on CPU tensors in a group of its own: it neither synchronises a GPU nor mixes with the engine's traffic.
    """

    def __init__(self) -> None:
        """Collective."""
        is_alone = not dist.is_initialized() or world_size() == 1
        self._group: Any = None if is_alone else dist.new_group(backend="gloo")  # 2.15 types it as if not all were in
        self._ballot: Tensor | None = None
        self._pending: dist.Work | None = None

    def cast(self, *wishes: bool) -> list[bool]:
        """Hand in this rank's wishes; return what any rank wished in the last call. Collective."""
        if self._group is None:
            return list(wishes)
        if self._pending is not None:
            self._pending.wait()
        outcome = [False] * len(wishes) if self._ballot is None else [bool(wish) for wish in self._ballot.tolist()]
        self._ballot = torch.tensor(wishes, dtype=torch.int64)
        self._pending = dist.all_reduce(self._ballot, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        return outcome


def gathered(value: T) -> list[T]:
    """The `value` of every rank, in the order of ranks. Collective."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values
