"""What grows with the number of clips, and with ranks: whole epochs of ds_trainer as a user starts them."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.alternation import ROOT, Sample, rank_environment
from benchmarks.bench import Bench, Outcome
from benchmarks.case import Case
from benchmarks.case_writer import flags_of
from benchmarks.figures import OWN, Line, at_most
from benchmarks.stores import synthetic_store

_CLIPS = (1_000, 10_000, 75_300)
_FRAMES: dict[str, int | str] = {"min_frames": 4, "max_frames": 4}
"""In a clip: the model sees 50 anyway, and KArSL's 30 to 60 of so many clips would fill 10 GB."""
_LEAST_CLIPS_MEASURED = 12_000
_MOST_GROWTH = 1.05


def measure_growth(bench: Bench) -> Outcome:
    """Time and memory of an epoch, validation included, and clips a second with more ranks."""
    outcome = Outcome()
    numbers = (1_000, 2_000) if bench.effort.is_quick else _CLIPS
    found: dict[int, Sample] = {}
    for num_clips in numbers:
        store = synthetic_store(num_clips, bench.say, **_FRAMES)
        bench.say(f"growth: {num_clips} clips")
        found[num_clips] = _trained(bench, bench.case("t_1_1", 32, store=store), num_clips)
    outcome.samples["growth"] = {str(num_clips): sample for num_clips, sample in found.items()}
    few = numbers[0]
    for num_clips in numbers[1:]:
        for key, what in (("us_a_clip", "us a clip and epoch"), ("peak_mib", "peak MiB")):
            own, theirs = found[num_clips][key], found[few][key]
            line = Line(f"growth, {num_clips} clips", what, own, f"{few} clips", theirs, theirs / own)
            outcome.lines.append(at_most(line, _MOST_GROWTH * theirs, f"<= {_MOST_GROWTH:g} x"))
    outcome.lines += _over_ranks(bench, outcome)
    return outcome


def _trained(bench: Bench, case: Case, num_clips: int) -> Sample:
    """An epoch of a run that passes some thousand clips after its first epoch, and the run's peak of memory."""
    num_epochs = 1 + max(1, round(_LEAST_CLIPS_MEASURED / num_clips))
    runs_dir = Path(tempfile.mkdtemp(prefix="runs-", dir=bench.work_dir))
    with (runs_dir.parent / f"{runs_dir.name}.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "launch/train.py", *flags_of(case, runs_dir, num_epochs)],
            cwd=ROOT,
            env=rank_environment(bench.effort),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"training on {num_clips} clips ended with status {process.returncode}: {output.name}")
    (records,) = runs_dir.glob("*/metrics.jsonl")
    epochs = [record for record in map(json.loads, records.read_text().splitlines()) if record["kind"] == "epoch"]
    seconds = [epoch["seconds"] for epoch in epochs[1:]]
    return {
        "us_a_clip": 1e6 * statistics.median(seconds) / num_clips,
        "epochs_s": seconds,
        "peak_mib": usage.ru_maxrss / 2**10,
    }


def _over_ranks(bench: Bench, outcome: Outcome) -> list[Line]:
    """Of `s_4_6`, micro-batch 32 on each rank, a thread and a core for each."""
    case = bench.case("s_4_6", 4 if bench.effort.is_quick else 32)
    rates: dict[int, float] = {}
    for world_size in (1, *(size for size in (2, 4, 8) if size <= (os.cpu_count() or 1))):
        title = f"growth, {world_size} {'rank' if world_size == 1 else 'ranks'}"
        by_round = bench.contest(outcome, title, (OWN,), case, world_size=world_size)[OWN]
        if by_round:
            wall_s = statistics.median(sample["wall_s"] for sample in by_round)
            rates[world_size] = world_size * case.micro_batch / wall_s
    return [
        Line(f"growth, {size} ranks", "clips/s", rate, "1 rank", rates[1], rate / rates[1])
        for size, rate in rates.items()
        if size > 1 and 1 in rates
    ]
