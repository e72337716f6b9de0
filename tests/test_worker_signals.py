"""Signals to all processes of a job leave those that fetch its data to the training process."""

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import psutil
import pytest
from launching import ROOT, clean_environment

from ds_trainer.job import EXIT_STOPPED
from ds_trainer.worker_signals import heed_the_parent_alone

WITH_WORKERS = """
from ds_trainer.tasks.toy.task import ToyTask


class WithWorkers(ToyTask):
    num_workers = 2
"""


_STARTED_S = 100  # one that is started anew imports torch and DeepSpeed first, on a busy machine for half a minute


def _fetch(is_ready: Event) -> None:
    heed_the_parent_alone(0)
    is_ready.set()
    time.sleep(200)


@pytest.mark.timeout(200)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_worker_heeds_the_sigterm_of_its_parent_alone(start_method: str) -> None:
    context = multiprocessing.get_context(start_method)
    is_ready = context.Event()
    worker = context.Process(target=_fetch, args=(is_ready,), daemon=True)  # type: ignore[attr-defined]
    worker.start()
    try:
        assert is_ready.wait(_STARTED_S)
        for name in ("INT", "USR1", "TERM"):
            subprocess.run(["sh", "-c", f"kill -{name} {worker.pid}"], check=True)
        worker.join(0.5)
        assert worker.is_alive()
        worker.terminate()
        worker.join(30)
        assert worker.exitcode == 0
    finally:
        worker.kill()
        worker.join()


def _start_late_and_wait(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.01)
    heed_the_parent_alone(0)
    time.sleep(200)


def _leave_an_idle_worker(start_method: str, told: Connection) -> None:
    """As a training process that is killed while a worker starts, which has not looked for its parent yet."""
    context = multiprocessing.get_context(start_method)
    worker = context.Process(target=_start_late_and_wait, args=(os.getpid(),))  # type: ignore[attr-defined]
    worker.start()
    told.send(worker.pid)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_worker_ends_whose_parent_was_killed_while_it_started(start_method: str) -> None:
    asked, told = multiprocessing.Pipe()
    parent = multiprocessing.Process(target=_leave_an_idle_worker, args=(start_method, told))
    parent.start()
    assert asked.poll(_STARTED_S)
    worker = psutil.Process(asked.recv())
    try:
        parent.join(30)
        assert parent.exitcode == -signal.SIGKILL
        assert not psutil.wait_procs([worker], timeout=_STARTED_S)[1]
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGKILL])
def test_signal_to_a_whole_job_saves_a_run_whose_data_workers_fetch(tmp_path: Path, number: signal.Signals) -> None:
    """SIGKILL goes to the training process alone, and its workers end by themselves."""
    (tmp_path / "fetching.py").write_text(WITH_WORKERS)
    flags = ["--deepspeed_config", ROOT / "ds_configs" / "bf16.json", "--task", "fetching:WithWorkers"]
    process = subprocess.Popen(
        [sys.executable, ROOT / "launch" / "train.py", *flags, "--num_epochs", "999", "--record_every_steps", "1"],
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        workers = _workers_in_training(process, tmp_path)
        os.killpg(process.pid, number) if number != signal.SIGKILL else process.kill()
        output, _ = process.communicate(timeout=90)
        assert process.returncode == (-number if number == signal.SIGKILL else EXIT_STOPPED), output
        assert not psutil.wait_procs(workers, timeout=20)[1], "workers are left"
    finally:
        _kill_group(process.pid)
    if number != signal.SIGKILL:
        (path,) = tmp_path.glob("runs/*/status.json")
        status = json.loads(path.read_text())
        assert (status["status"], status["reason"]) == ("stopped", number.name)


def _kill_group(number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(number, signal.SIGKILL)


def _workers_in_training(process: subprocess.Popen[str], folder: Path) -> list[psutil.Process]:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        is_training = any('"epoch": 2' in path.read_text() for path in folder.glob("runs/*/metrics.jsonl"))
        workers = psutil.Process(process.pid).children() if is_training else []
        if len(workers) >= 2:
            return workers
        time.sleep(0.01)
    process.kill()
    raise AssertionError(process.communicate()[0])
