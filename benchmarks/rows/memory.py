"""Peak memory of the training process, what it does with the number of clips, and how long a store takes to open."""

import statistics
import time
from dataclasses import replace

from benchmarks.bench import Bench, Outcome
from benchmarks.figures import OWN, Line, Measure, at_most, compare
from benchmarks.stores import synthetic_store
from ds_trainer.tasks.sign.store import ClipStore

_FEW, _MANY = 1_000, 20_000
_KARSL = 75_300
_ONE_FRAME: dict[str, int | str] = {"min_frames": 1, "max_frames": 1, "layout": "holistic_75"}
_GROWTH = 1.02


def measure_memory(bench: Bench) -> Outcome:
    """The most that was resident, mapped pages of the store included."""
    outcome = Outcome()
    title = "memory s_4_6"
    effort = replace(bench.effort, rounds=1)
    case = bench.case("s_4_6", 4 if bench.effort.is_quick else 32)
    samples = bench.contest(outcome, title, (OWN, "plain", "deepspeed"), case, effort)
    outcome.lines += compare(title, samples, Measure("peak_mib", "peak MiB", least_ratio={"plain": 1.0}))
    outcome.lines += _growth(bench, outcome)
    outcome.lines.append(_opening(bench, outcome))
    return outcome


def _growth(bench: Bench, outcome: Outcome) -> list[Line]:
    """As much is trained on few clips as on many: only their number differs."""
    many = 4 * _FEW if bench.effort.is_quick else _MANY
    peaks = {}
    for num_clips in (_FEW, many):
        case = bench.case("t_4_2", 32, store=synthetic_store(num_clips, bench.say))
        title = f"memory, {num_clips} clips"
        samples = bench.contest(outcome, title, (OWN,), case, replace(bench.effort, rounds=1, steps=10))
        peaks[num_clips] = samples[OWN][0] if samples[OWN] else None
    few, more = peaks[_FEW], peaks[many]
    if few is None or more is None:
        return []
    lines = []
    for key, what in (("peak_mib", "peak MiB"), ("anonymous_mib", "MiB that are no file")):
        line = Line(f"memory, {many} clips", what, more[key], f"{_FEW} clips", few[key], few[key] / more[key])
        lines.append(at_most(line, _GROWTH * few[key], f"<= {_GROWTH:g} x"))
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
