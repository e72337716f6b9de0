"""Contestants in turn: all wait, one trains a round, then the next, so that what else the machine does hits all alike.

Each contestant is one process, or one a rank, and lives through all rounds: starting costs seconds, a round a few
steps. The order is turned round in every other round.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.case import Case
from benchmarks.case_writer import ENGINE_CONFIG
from benchmarks.pace import MARK
from ds_trainer.rank_variables import without_ranks

ROOT = Path(__file__).parents[1]

Sample = dict[str, Any]
Samples = dict[str, list[Sample]]


class ContestantError(Exception):
    """A contestant ended, or was silent for too long."""


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Args:
        rounds: how often each contestant has its turn.
        steps: in a round.
        warm_up: steps before the first round.
        is_quick: everything small, to see that it works; such numbers are not to be compared with the goals.
        threads: of each rank.
        engine_config: of ds_trainer.
        timeout_s: for which a contestant may be silent.
    """

    rounds: int = 7
    steps: int = 3
    warm_up: int = 2
    is_quick: bool = False
    threads: int = 1
    engine_config: Path = ENGINE_CONFIG
    timeout_s: float = 900.0


class Contestant:
    """The processes of one contestant."""

    def __init__(self, name: str, case: Case, effort: Effort, world_size: int, is_counted: bool):
        self.name = name
        self._timeout_s = effort.timeout_s
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the processes
        command = [sys.executable, "-m", "benchmarks.contestant", name, str(case.folder)]
        command += ["--warm_up", str(effort.warm_up), "--steps", str(effort.steps), "--threads", str(effort.threads)]
        command += ["--count"] if is_counted else []
        port = free_port()
        self._ranks = [self._start(command, rank_environment(effort, rank, world_size, port))
                       for rank in range(world_size)]  # fmt: skip

    def _start(self, command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def result(self) -> Sample:
        """What the contestant says at the end of its warm-up or of a round.

        Raises:
            ContestantError: it ended.
        """
        killer = threading.Timer(self._timeout_s, self.kill)
        killer.start()
        try:
            return merged([self._line_of(rank) for rank in self._ranks])
        finally:
            killer.cancel()

    def round(self) -> Sample:
        """Train a round.

        Raises:
            ContestantError: it ended.
        """
        for rank in self._ranks:
            try:
                _writer(rank).write("\n")
                _writer(rank).flush()
            except BrokenPipeError:
                raise ContestantError(self._why(rank)) from None
        return self.result()

    def _line_of(self, rank: "subprocess.Popen[str]") -> Sample:
        assert rank.stdout is not None
        for line in rank.stdout:
            if line.startswith(MARK):
                sample: Sample = json.loads(line.removeprefix(MARK))
                return sample
        raise ContestantError(self._why(rank))

    def _why(self, rank: "subprocess.Popen[str]") -> str:
        status = rank.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        return f"{self.name}: {how}: {' | '.join(lines[-3:])}"[:600]

    def finish(self) -> None:
        """End the contestant: there is no further round."""
        for rank in self._ranks:
            _writer(rank).close()
        for rank in self._ranks:
            try:
                rank.wait(60)
            except subprocess.TimeoutExpired:
                rank.kill()
                rank.wait()
            assert rank.stdout is not None
            rank.stdout.close()
        self._errors.close()

    def kill(self) -> None:
        """End it at once."""
        for rank in self._ranks:
            rank.kill()


def _writer(rank: "subprocess.Popen[str]") -> IO[str]:
    assert rank.stdin is not None
    return rank.stdin


def alternate(contestants: Sequence[Contestant], rounds: int) -> tuple[Samples, list[str]]:
    """The samples of each contestant by its name, and what was said by those that failed; all are ended."""
    samples: Samples = {contestant.name: [] for contestant in contestants}
    problems: list[str] = []
    alive = list(contestants)

    def turn(contestant: Contestant, is_warm_up: bool) -> None:
        try:
            sample = contestant.result() if is_warm_up else contestant.round()
        except ContestantError as error:
            problems.append(str(error))
            alive.remove(contestant)
            contestant.kill()
            return
        if not is_warm_up:
            samples[contestant.name].append(sample)

    try:
        for contestant in list(alive):
            turn(contestant, is_warm_up=True)
        for number in range(rounds):
            for contestant in alive[:: -1 if number % 2 else 1]:
                turn(contestant, is_warm_up=False)
    finally:
        for contestant in contestants:
            contestant.finish()
    return samples, problems


def merged(by_rank: Sequence[Sample]) -> Sample:
    """One sample of all ranks: the CPU time is theirs together, the wall time that of the slowest."""
    first = by_rank[0]
    if "cpu_s" not in first:
        return first
    return {
        **first,
        "cpu_s": sum(statistics.fmean(sample["cpu_s"]) for sample in by_rank),
        "wall_s": max(statistics.fmean(sample["wall_s"]) for sample in by_rank),
        "loss": None if first["loss"] is None else statistics.fmean(sample["loss"] for sample in by_rank),
        "peak_mib": max(sample["peak_mib"] for sample in by_rank),
        "by_rank": [{name: sample[name] for name in ("cpu_s", "wall_s")} for sample in by_rank],
    }


def rank_environment(effort: Effort, rank: int = 0, world_size: int = 1, port: int = 0) -> dict[str, str]:
    """The environment of a contestant's process; one that trains alone is told of a port, not of ranks."""
    environment = without_ranks(os.environ)
    environment["OMP_NUM_THREADS"] = str(effort.threads)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTHONPATH"] = str(ROOT)
    environment["MASTER_PORT"] = str(port or free_port())
    if world_size > 1:
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_SIZE": world_size}
        environment |= {name: str(value) for name, value in ranks.items()}
        environment["MASTER_ADDR"] = "127.0.0.1"
    return environment


def free_port() -> int:
    """A port on which nobody listened a moment ago, below those that connections get: another may have one at once."""
    while True:
        port = 20_000 + secrets.randbelow(9_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
