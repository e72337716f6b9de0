"""A rank that waits for the others to start ends when it is asked to."""

import signal
import subprocess
import sys

import pytest
from launching import ROOT, clean_environment, free_port
from torch.distributed import HashStore  # type: ignore[attr-defined]

from ds_trainer.errors import MeetingError
from ds_trainer.watch.arrival import wait_for_keys

ALONE_OF_TWO = """
import os, signal, threading, time
from ds_trainer.watch.watch import Watch

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores
threading.Timer(1, lambda: os.kill(os.getpid(), int(os.environ["NUMBER"]))).start()
Watch().join(stall_timeout_s=2)
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_rank_that_waits_for_another_ends_by_a_signal(number: signal.Signals) -> None:
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    environment = clean_environment({**ranks, "MASTER_PORT": str(free_port()), "NUMBER": str(int(number))})
    command = [sys.executable, "-c", ALONE_OF_TWO]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE) as process:
        try:
            process.wait(90)  # far less than the 300 s for which it waits for the other
        finally:
            process.kill()
    assert process.returncode == -number


def test_master_that_does_not_come_to_the_store_of_a_launcher_is_told() -> None:
    store = HashStore()
    store.set("one", "here")
    wait_for_keys(store, ["one"])
    with pytest.raises(MeetingError, match="rank 0 has not come within 0 s; look at its log"):
        wait_for_keys(store, ["one", "two"], timeout_s=0.3)
