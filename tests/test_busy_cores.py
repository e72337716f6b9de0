"""Who trains beside another program is told that it takes the cores."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ds_trainer.run import busy_cores
from ds_trainer.run.busy_cores import BusyCores


def waited_beside_a_busy_loop(cores: BusyCores, seconds: float) -> None:
    """Compute on a core that another process keeps busy."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.5)
        cores.start()
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            pass
        cores.end(seconds)
    finally:
        other.kill()
        other.wait()
        os.sched_setaffinity(0, allowed)


@pytest.mark.skipif(
    not Path("/proc/thread-self/schedstat").exists(), reason="the kernel does not tell how long threads wait"
)
def test_is_told_once_that_others_use_the_cores(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    cores = BusyCores()
    for _ in range(2):
        waited_beside_a_busy_loop(cores, 2.5)
    (told,) = caplog.messages
    assert told.startswith("training waited for a core in ")
    assert told.endswith("% of an epoch: others use them; one thread (OMP_NUM_THREADS=1) may be faster then")


def test_little_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    cores = BusyCores()
    for seconds in (1e-9, 1e9):  # much of a moment; a moment of much
        cores.start()
        cores.end(seconds)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("rank", "waited_s", "seconds", "told"),
    [
        (0, 0.4, 1.0, None),
        (0, 0.6, 1.0, "training waited for a core in 60% of an epoch: others use them"),
        (0, 1.9, 10.0, None),
        (0, 2.1, 10.0, "training waited for a core in 21% of an epoch: others use them"),
        (1, 9.0, 10.0, None),
    ],
)
def test_one_rank_of_a_host_tells_what_is_much(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    rank: int,
    waited_s: float,
    seconds: float,
    told: str | None,
) -> None:
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    found = iter([5.0, 5.0 + waited_s])
    monkeypatch.setattr(busy_cores, "seconds_waited", lambda thread_id: next(found))
    cores = BusyCores()
    cores.start()
    cores.end(seconds)
    assert caplog.messages == ([] if told is None else [told])
