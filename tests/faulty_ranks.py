"""A task whose ranks die, stall, crash or run out of memory on request, and jobs of it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from launching import ROOT, clean_environment, free_port

TIMEOUT_S = 8  # what a machine with more ranks than cores can keep to
TRAIN = [
    "launch/train.py", "--deepspeed_config", "ds_configs/bf16.json", "--task", "toy", "--num_points", "3000",
    "--num_epochs", "9999", "--record_every_steps", "1", "--stall_timeout_s", str(TIMEOUT_S),
]  # fmt: skip
FAULTY_TASK = '''
import os, signal, time
from torch.utils.data import Dataset
from ds_trainer.tasks.toy.task import ToyTask

class Faulty(Dataset):
    """The 500th item that rank 1 fetches is not like the others."""
    def __init__(self, points):
        self.points, self.num_fetched = points, 0

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        self.num_fetched += 1
        if os.environ["RANK"] == "1" and self.num_fetched == 500:
            self.fail()
        return self.points[index]

class Sleeps(Faulty):
    def fail(self):
        time.sleep(9999)  # a disk that does not answer

class Raises(Faulty):
    def fail(self):
        raise ZeroDivisionError("clip 17 is broken")

class SleepingTask(ToyTask):
    def __init__(self, settings):
        super().__init__(settings)
        self.train_set = Sleeps(self.train_set)

class RaisingTask(ToyTask):
    def __init__(self, settings):
        super().__init__(settings)
        self.train_set = Raises(self.train_set)

class DiesEarlyTask(ToyTask):
    def build_model(self):
        time.sleep(1)
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().build_model()

class Hungry(Faulty):
    def fail(self):
        import torch
        torch.empty(2**50)  # of float32: more than any machine has

class Crashes(Faulty):
    def fail(self):
        import ctypes
        ctypes.string_at(0)

class DiesOnce(Faulty):
    def fail(self):
        if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)

class DyingOnceTask(ToyTask):
    def __init__(self, settings):
        super().__init__(settings)
        self.train_set = DiesOnce(self.train_set)

class CrashingTask(ToyTask):
    def __init__(self, settings):
        super().__init__(settings)
        self.train_set = Crashes(self.train_set)

class HungryTask(ToyTask):
    def __init__(self, settings):
        super().__init__(settings)
        self.train_set = Hungry(self.train_set)
'''


class Job:
    """Ranks started as plain processes, each with a file for its output."""

    def __init__(self, out_dir: Path, num_ranks: int, *flags: str):
        self.runs_dir = out_dir / "runs"
        self._outputs = [out_dir / f"rank-{rank}.log" for rank in range(num_ranks)]
        ranks = {"WORLD_SIZE": str(num_ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        paths = os.pathsep.join([str(out_dir), clean_environment()["PYTHONPATH"]])
        self.processes = []
        for rank, output in enumerate(self._outputs):
            names = {"RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": paths}
            with output.open("w") as file:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, *TRAIN, "--runs_dir", str(self.runs_dir), *flags],
                        cwd=ROOT,
                        env=clean_environment({**ranks, **names}),
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                )

    def output(self, rank: int) -> str:
        return self._outputs[rank].read_text()

    def everything(self) -> str:
        return "\n".join(f"--- rank {rank}\n{self.output(rank)[-5000:]}" for rank in range(len(self.processes)))

    def wait_for(self, is_so: Callable[[], bool], seconds: float, what: str) -> float:
        began = time.monotonic()
        while not is_so():
            assert time.monotonic() - began < seconds, f"{what} not within {seconds} s\n{self.everything()}"
            time.sleep(0.05)
        return time.monotonic() - began

    def wait_for_step(self, step: int) -> None:
        def has_come() -> bool:
            assert all(process.poll() is None for process in self.processes), self.everything()
            return any(f'"step": {step},' in path.read_text() for path in self.runs_dir.glob("*/metrics.jsonl"))

        self.wait_for(has_come, 120, f"step {step}")

    def signal(self, rank: int, number: signal.Signals) -> None:
        self.processes[rank].send_signal(number)

    def statuses(self, ranks: list[int], seconds: float) -> list[int | None]:
        """How these ranks end, and they must end within so many seconds."""
        self.wait_for(
            lambda: all(self.processes[rank].poll() is not None for rank in ranks), seconds, f"end of {ranks}"
        )
        return [self.processes[rank].returncode for rank in ranks]

    def status_file(self) -> dict[str, object]:
        (path,) = self.runs_dir.glob("*/status.json")
        return dict(json.loads(path.read_text()))


@contextmanager
def job(out_dir: Path, num_ranks: int, *flags: str) -> Iterator[Job]:
    started = Job(out_dir, num_ranks, *flags)
    try:
        yield started
    finally:
        for process in started.processes:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()


def assert_named(job: Job, lost: int, speaker: int, others: list[int], what: str) -> None:
    """One rank, and no other, names the lost one, with its host and where it stood."""
    said = job.output(speaker)
    expected = rf"error: rank {lost} on {re.escape(socket.gethostname())} \(pid {job.processes[lost].pid}\) {what}"
    assert re.search(expected, said), said
    assert re.search(
        rf"rank {lost} stood in (fetching|training|validating|scoring|saving)\S*, epoch \d+, step \d+:", said
    ), said
    assert re.search(r"\S+\.py:\d+ \S+: \S", said), f"no stack\n{said}"
    assert "--resume auto" in said
    for rank in set(others) - {speaker}:
        assert "error: " not in job.output(rank), job.output(rank)
    assert "Connection" not in "".join(job.output(rank) for rank in others), job.everything()
