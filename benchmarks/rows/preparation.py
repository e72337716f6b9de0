"""Batch preparation alone: gather, resample, normalise, mirror, rotate, scale and shift, on one core."""

from dataclasses import replace

from benchmarks.bench import Bench, Outcome
from benchmarks.figures import OWN, Measure, compare

_MICRO_BATCH = 32


def measure_preparation(bench: Bench) -> Outcome:
    """Clips a second of CPU time."""
    outcome = Outcome()
    title = "preparation, micro-batch 32"
    effort = replace(bench.effort, steps=4 * bench.effort.steps)
    samples = bench.contest(outcome, title, ("ds_trainer_data", "numpy_data"), bench.case("s_4_6", 32), effort)
    rates = {
        name.replace("ds_trainer_data", OWN): [{"rate": _MICRO_BATCH / sample["cpu_s"]} for sample in by_round]
        for name, by_round in samples.items()
    }
    measure = Measure("rate", "clips/CPU s", is_cost=False, least_ratio={"numpy_data": 2.5})
    outcome.lines += compare(title, rates, measure)
    return outcome
