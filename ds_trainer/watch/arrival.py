"""Waiting until all ranks have come, within Python: while torch waits, no signal is heard (seen with torch 2.13.0)."""

import math
import socket
import time

from torch.distributed.distributed_c10d import Store

from ds_trainer.distributed import is_master, rank, world_size
from ds_trainer.errors import MeetingError

_LOOK_S = 0.1
_ALL = "ds_trainer/all_have_come"


def wait_for_all(store: Store) -> None:
    """Wait until every rank has called this. The watch ends the process where one does not. Collective."""
    store.set(_of(rank()), "here")
    if is_master():
        wait_for_keys(store, list(map(_of, range(world_size()))))
        store.set(_ALL, "here")
    wait_for_keys(store, [_ALL])


def wait_for_keys(store: Store, keys: list[str], timeout_s: float = math.inf) -> None:
    """Wait until all of these stand in the store.

    Raises:
        MeetingError: they do not, in so many seconds.
    """
    deadline_s = time.monotonic() + timeout_s
    while not store.check(keys):
        if time.monotonic() >= deadline_s:
            raise MeetingError(
                f"rank {rank()} on {socket.gethostname()}: rank 0 has not come within {timeout_s:.0f} s; look at its "
                "log"
            )
        time.sleep(_LOOK_S)


def _of(number: int) -> str:
    return f"ds_trainer/rank_{number}_has_come"
