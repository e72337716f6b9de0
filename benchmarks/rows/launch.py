"""From the command to the first step that is done: ds_trainer's launch script and a minimal one of raw DeepSpeed."""

import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from benchmarks.alternation import ROOT, free_port, rank_environment
from benchmarks.bench import Bench, Outcome
from benchmarks.case import Case
from benchmarks.case_writer import flags_of
from benchmarks.figures import OWN, Measure, at_most, compare

_MOST_ROUNDS = 3
_TIMEOUT_S = 300.0
_GRACE_S = 1.0


class NoStepError(Exception):
    """A launch came to no step."""


def measure_launch(bench: Bench) -> Outcome:
    """The store is built, the machine warm; the model is small, so that its first step is not what takes time."""
    outcome = Outcome()
    title = "launch to first step"
    bench.say(f"{title}: {OWN}, deepspeed")
    case = bench.case("t_4_2", 4)
    samples: dict[str, list[dict[str, float]]] = {OWN: [], "deepspeed": []}
    for _ in range(min(bench.effort.rounds, _MOST_ROUNDS)):
        for name, launch in ((OWN, _launch_own), ("deepspeed", _launch_raw)):
            try:
                samples[name].append({"wall_s": launch(bench, case)})
            except NoStepError as error:
                outcome.notes.append(f"{title}: {name}: {error}")
    outcome.samples[title] = samples
    for line in compare(title, samples, Measure("wall_s", "wall s")):
        goal = f"<= raw + {_GRACE_S:g} s"
        outcome.lines.append(line if line.theirs is None else at_most(line, line.theirs + _GRACE_S, goal))
    return outcome


def _launch_own(bench: Bench, case: Case) -> float:
    runs_dir = Path(tempfile.mkdtemp(prefix="runs-", dir=bench.work_dir))
    flags = [*flags_of(case, runs_dir, num_epochs=1), "--record_every_steps", "1"]
    return _seconds(bench, ["launch/train.py", *flags], lambda: any(runs_dir.glob("*/metrics.jsonl")))


def _launch_raw(bench: Bench, case: Case) -> float:
    done = Path(tempfile.mkdtemp(prefix="raw-", dir=bench.work_dir)) / "done"
    return _seconds(bench, ["benchmarks/raw_script.py", case.folder, done], done.exists)


def _seconds(bench: Bench, script: Sequence[str | Path], is_done: Callable[[], bool]) -> float:
    """Seconds until `is_done`, to 20 ms; then everything that was started is ended."""
    command = ["deepspeed", "--master_port", str(free_port()), *map(str, script)]
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=rank_environment(bench.effort), stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while not is_done():
                if process.poll() is not None or time.perf_counter() - began > _TIMEOUT_S:
                    output.seek(0)
                    lines = output.read().decode(errors="replace").strip().splitlines()
                    raise NoStepError(f"no step (status {process.poll()}): {' | '.join(lines[-3:])}"[:600])
                time.sleep(0.02)
            return time.perf_counter() - began
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    with_children = []
    if process.poll() is None:
        launcher = psutil.Process(process.pid)
        with_children = [launcher, *launcher.children(recursive=True)]
    for started in with_children:
        if started.is_running():
            started.kill()
    process.wait()
