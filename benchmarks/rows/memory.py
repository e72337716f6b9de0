"""Peak memory of the training process, what it does with the number of clips, and how long a store takes to open."""

import statistics
import time
from dataclasses import replace

from benchmarks.alternation import Sample
from benchmarks.bench import Bench, Outcome
from benchmarks.figures import OWN, Line, Measure, at_most, compare
from benchmarks.stores import synthetic_store
from ds_trainer.tasks.sign.store import ClipStore

_FEW, _MANY = 1_000, 20_000
_KARSL = 75_300
_ONE_FRAME: dict[str, int | str] = {"min_frames": 1, "max_frames": 1, "layout": "holistic_75"}
_GROWTH = 1.02
_PROCESSES = 5


def measure_memory(bench: Bench) -> Outcome:
    """The most that was resident, mapped pages of the store included."""
    outcome = Outcome()
    title = "memory s_4_6"
    effort = replace(bench.effort, rounds=1)
    case = bench.case("s_4_6", 4 if bench.effort.is_quick else 32)
    names = bench.affordable(outcome, title, (OWN, "plain", "plain_fp32", "deepspeed"))
    samples = bench.contest(outcome, title, names, case, effort)
    outcome.lines += compare(title, samples, Measure("peak_mib", "peak MiB", least_ratio={"plain": 1.0}))
    outcome.lines += _growth(bench, outcome)
    outcome.lines.append(_opening(bench, outcome))
    return outcome


def _growth(bench: Bench, outcome: Outcome) -> list[Line]:
    """As much is trained on few clips as on many: only their number differs.

    Medians of several processes, alternating: two that do the same differ by up to 40 MiB.
    """
    many = 4 * _FEW if bench.effort.is_quick else _MANY
    cases = {n: bench.case("t_4_2", 32, store=synthetic_store(n, bench.say)) for n in (_FEW, many)}
    effort = replace(bench.effort, rounds=1, steps=10)
    found: dict[int, list[Sample]] = {_FEW: [], many: []}
    for number in range(1 if bench.effort.is_quick else _PROCESSES):
        for num_clips, case in cases.items():
            title = f"memory, {num_clips} clips, process {number + 1}"
            found[num_clips] += bench.contest(outcome, title, (OWN,), case, effort)[OWN]
    if not all(found.values()):
        return []
    lines = []
    for key, what in (("peak_mib", "peak MiB"), ("anonymous_mib", "MiB that are no file")):
        few, more = (statistics.median(sample[key] for sample in found[n]) for n in (_FEW, many))
        line = Line(f"memory, {many} clips", what, more, f"{_FEW} clips", few, few / more)
        lines.append(at_most(line, _GROWTH * few, f"<= {_GROWTH:g} x"))
    return lines


def _opening(bench: Bench, outcome: Outcome) -> Line:
    """Clips of one frame: opening reads the index alone, and the frames of so many clips would fill 10 GB."""
    num_clips = 4 * _FEW if bench.effort.is_quick else _KARSL
    store = synthetic_store(num_clips, bench.say, **_ONE_FRAME)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        ClipStore.open(store)
        seconds.append(time.perf_counter() - began)
    title = f"opening {num_clips} clips"
    outcome.samples[title] = seconds
    return at_most(Line(title, "wall s", statistics.median(seconds)), 1.0, "<= 1 s")
