"""The pace of a contestant: it trains a round when it is told to, and says what the round cost.

A contestant calls its pace after each step. At the end of the warm-up and of each round the pace writes one line of
JSON to standard output, then waits for a line on standard input; at the end of the input the contestant is done.
"""

import contextlib
import itertools
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.operations import Counting, Counts

MARK = "@@ "
"""Begins each line that is meant for the harness: DeepSpeed and others write to standard output, too."""

Totals = tuple[float, float]
"""Sum of losses and number of clips, since some moment: what a contestant knows of its own learning."""
AfterStep = Callable[[Callable[[], Totals]], None]


class EnoughError(Exception):
    """There is no further round."""


@dataclass
class Pace:
    """Called after each step.

    Args:
        warm_up: steps before the first round.
        steps: in a round.
        counts_operations: whether operations are counted in place of seconds.
    """

    warm_up: int
    steps: int
    counts_operations: bool = False

    def __post_init__(self) -> None:
        self._left = self.warm_up
        self._is_warm = False
        self._cpu_s: list[float] = []
        self._wall_s: list[float] = []
        self._totals: Totals = (0.0, 0.0)
        self._counting: Counting | None = None

    def __call__(self, totals: Callable[[], Totals]) -> None:
        """Count a step; `totals` is asked between rounds only, as it may wait for the device."""
        self._left -= 1
        if self._left == 0:
            wait_for_device()
        self._cpu_s.append(time.process_time())
        self._wall_s.append(time.perf_counter())
        if self._left == 0:
            self._between_rounds(totals)

    def _between_rounds(self, totals: Callable[[], Totals]) -> None:
        counts = self._end_counting()
        now = totals()
        say(self._sample(now) | counts)
        if not sys.stdin.readline():
            raise EnoughError
        self._left, self._is_warm, self._totals = self.steps, True, now
        wait_for_device()
        self._begin_counting()
        self._cpu_s, self._wall_s = [time.process_time()], [time.perf_counter()]

    def _sample(self, now: Totals) -> dict[str, Any]:
        if not self._is_warm:
            return {"ready": True}
        before = self._totals if now[1] >= self._totals[1] else (0.0, 0.0)  # a new epoch sums from 0
        num_clips = now[1] - before[1]
        return {
            "cpu_s": _differences(self._cpu_s),
            "wall_s": _differences(self._wall_s),
            "loss": (now[0] - before[0]) / num_clips if num_clips else None,
            **memory_mib(),
        }

    def _begin_counting(self) -> None:
        if self.counts_operations:
            self._counting = Counting()
            self._counting.__enter__()  # type: ignore[no-untyped-call]

    def _end_counting(self) -> dict[str, Any]:
        if self._counting is None:
            return {}
        self._counting.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        counts, self._counting = self._counting.counts(), None
        return _per_step(counts, self.steps)


def nothing_learned() -> Totals:
    """For a contestant that does not train."""
    return 0.0, 0.0


def say(message: dict[str, Any]) -> None:
    """Tell the harness."""
    sys.stdout.write(f"\n{MARK}{json.dumps(message)}\n")
    sys.stdout.flush()


def memory_mib() -> dict[str, float]:
    """Of this process: the most that was ever resident, and what is now that is no file."""
    memory = {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10}
    with contextlib.suppress(OSError):
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        memory["anonymous_mib"] = int(fields["RssAnon"].split()[0]) / 2**10
    return memory


def _per_step(counts: Counts, steps: int) -> dict[str, Any]:
    return {
        "operations": counts.operations / steps,
        "synchronisations": counts.synchronisations / steps,
        "bytes_copied": counts.bytes_copied / steps,
        "by_name": counts.by_name,
    }


def _differences(marks: list[float]) -> list[float]:
    return [round(after - before, 6) for before, after in itertools.pairwise(marks)]


def wait_for_device() -> None:
    """Until a GPU, if there is one, has done all that it was asked for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
