"""Whether training has the cores that it computes on: threads wait for one another at each operation, so a program that
keeps one core busy slows a small model down many times over, and nothing else shows why."""

import socket
import threading

import torch

from ds_trainer.distributed import local_rank, rank, world_size
from ds_trainer.openmp import seconds_waited
from ds_trainer.progress import log

_LEAST_FRACTION, _LEAST_S = 0.2, 0.5
"""What is told: two threads or ranks on two cores wait 0.01 to 0.11 of the time, beside a busy loop 0.3."""


class BusyCores:
    """Warns, once in a run and for each host, if the thread that computes waited for a core in much of an epoch."""

    def __init__(self) -> None:
        self._is_told = local_rank() != 0
        self._waited_s = 0.0

    def start(self) -> None:
        """The steps of an epoch begin."""
        self._waited_s = seconds_waited(threading.get_native_id())

    def end(self, seconds: float) -> None:
        """The steps have taken `seconds`."""
        waited_s = seconds_waited(threading.get_native_id()) - self._waited_s
        if self._is_told or waited_s < max(_LEAST_FRACTION * seconds, _LEAST_S):
            return
        self._is_told = True
        who = f"rank {rank()} on {socket.gethostname()}" if world_size() > 1 else "training"
        remedy = "; one thread (OMP_NUM_THREADS=1) may be faster then" if torch.get_num_threads() > 1 else ""
        log.warning(f"{who} waited for a core in {waited_s / seconds:.0%} of an epoch: others use them{remedy}")
