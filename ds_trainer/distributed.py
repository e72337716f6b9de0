"""The ranks of a job: who this process is, and the few collectives that training needs.

The only module that communicates. Everything else is written as if there were one rank, and asks here for sums, for the
master's choice, or for a barrier. Works without DeepSpeed, so that evaluation needs none.
"""

import datetime
import os
import socket
from collections.abc import Callable, MutableMapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ds_trainer.errors import SettingsError

T = TypeVar("T")
_RANK_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def export_rank_variables(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT where the launcher did not: without mpi4py.

    `deepspeed` and `torchrun` set them; Open MPI and Slurm have names of their own; a plain `python` start is one rank.

    Raises:
        SettingsError: there are ranks on several nodes and nobody said where rank 0 listens.
    """
    if all(name in environ for name in _RANK_VARIABLES):
        return
    if "OMPI_COMM_WORLD_RANK" in environ:
        names = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK")
        is_one_node = environ["OMPI_COMM_WORLD_SIZE"] == environ.get("OMPI_COMM_WORLD_LOCAL_SIZE")
    elif int(environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in environ:
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
        is_one_node = environ.get("SLURM_NNODES", "1") == "1"
    elif "RANK" in environ and "WORLD_SIZE" in environ:
        # Clusters that start one process a node name no local rank; alone, each node would train by itself.
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        is_one_node = environ["WORLD_SIZE"] == "1"
        environ.setdefault("LOCAL_RANK", "0")
    else:
        environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(_free_port()))
        return
    for ours, theirs in zip(_RANK_VARIABLES, names, strict=False):
        environ[ours] = environ[theirs]
    if "MASTER_ADDR" not in environ:
        if not is_one_node:
            raise SettingsError("ranks on several nodes need MASTER_ADDR: export the host name of the node of rank 0")
        environ["MASTER_ADDR"] = "127.0.0.1"
    environ.setdefault("MASTER_PORT", "29500")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


def join(timeout_s: float) -> None:
    """Join the process group of all ranks. Collective.

    Args:
        timeout_s: seconds after which a collective that some rank does not reach raises on the others. It becomes the
            default of every group made later, DeepSpeed's own included: a timeout given to the first group alone leaves
            ZeRO's groups at 30 minutes (seen with deepspeed 0.19.8).
    """
    timeout = datetime.timedelta(seconds=timeout_s)
    for name in ("default_pg_timeout", "default_pg_nccl_timeout"):
        setattr(dist.distributed_c10d, name, timeout)
    if torch.cuda.is_available():
        torch.cuda.set_device(device())
    elif "OMP_NUM_THREADS" not in os.environ:
        # Each rank would start a thread a core, and ranks of one node would fight for them.
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // _ranks_on_this_node()))
    is_gpu = torch.cuda.is_available()
    dist.init_process_group("nccl" if is_gpu else "gloo", timeout=timeout, device_id=device() if is_gpu else None)


def _ranks_on_this_node() -> int:
    """As `deepspeed` (LOCAL_SIZE), `torchrun`, Open MPI or Slurm count them."""
    names = ("LOCAL_SIZE", "LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_NTASKS_PER_NODE")
    return next((int(os.environ[name]) for name in names if name in os.environ), 1)


def leave() -> None:
    """Leave the process group, if this process is in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def all_sum(tensor: Tensor) -> Tensor:
    """Replace `tensor` on every rank by its sum over the ranks, and return it. Collective."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def from_master(tensor: Tensor) -> Tensor:
    """Replace `tensor` on every rank by the master's, and return it. Collective."""
    if dist.is_initialized():
        dist.broadcast(tensor, src=0)
    return tensor


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
    """What the ranks wish for, known to all of them one step later, without waiting for the device or for each other.

    Works on CPU tensors in a group of its own: it neither synchronises a GPU nor mixes with the engine's traffic.
    """

    def __init__(self) -> None:
        """Collective."""
        is_alone = not dist.is_initialized() or world_size() == 1
        self._group = None if is_alone else dist.new_group(backend="gloo")
        self._ballot = torch.zeros(1, dtype=torch.int64)
        self._pending: dist.Work | None = None

    def cast(self, wish: int) -> int:
        """Hand in this rank's wish; return the greatest of the last call's. Collective."""
        if self._group is None:
            return wish
        if self._pending is not None:
            self._pending.wait()
        outcome = int(self._ballot.item())
        self._ballot = torch.tensor([wish])
        self._pending = dist.all_reduce(self._ballot, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        return outcome


def gathered(value: T) -> list[T]:
    """The `value` of every rank, in the order of ranks. Collective."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait until every rank is here. Collective."""
    if dist.is_initialized():
        dist.barrier()
