"""Clips a second and model-FLOPs utilisation on a GPU."""

import statistics
from collections.abc import Mapping
from dataclasses import replace

import torch

from benchmarks.bench import Bench, Outcome
from benchmarks.case import Case
from benchmarks.figures import COMPILED, OWN, Line, Measure, Samples, compare
from benchmarks.rows.arithmetic import flops_of_clip, utilisation_note

_CLIPS_PER_SECOND = {"s_4_6": 60_000, "m_4_6": 30_000}
_UTILISATION = {"l_6_8": 0.5}
_MICRO_BATCH = 256
_DATA_PATHS = {"ds_trainer_data": OWN, "ds_trainer_data_compiled": COMPILED}
_MOST_OF_STEP = 0.05
_AGAINST_PEERS = (OWN, COMPILED, "plain", "deepspeed", "accelerate")


def measure_gpu(bench: Bench) -> Outcome:
    """Each size alone, and `s_4_6` at micro-batch 64 against the peers; steps are short there, so a round has more."""
    outcome = Outcome()
    if not torch.cuda.is_available():
        outcome.notes.append("gpu: skipped: torch finds no CUDA device here")
        return outcome
    effort = replace(bench.effort, steps=20 * bench.effort.steps, warm_up=20)
    for size in ("s_4_6", "m_4_6", "l_6_8"):
        case = bench.case(size, _MICRO_BATCH)
        title = f"gpu {size}, micro-batch {_MICRO_BATCH}"
        step_s = _wall_s(bench.contest(outcome, title, (OWN, COMPILED), case, effort))
        for name, wall_s in step_s.items():
            outcome.lines += _goals(bench, outcome, f"{title}: {name}", case, _MICRO_BATCH / wall_s)
        data_s = _wall_s(bench.contest(outcome, f"{title}, data path", _DATA_PATHS, case, effort))
        outcome.lines += _shares(title, data_s, step_s)
    title = "gpu s_4_6, micro-batch 64"
    samples = bench.contest(outcome, title, _AGAINST_PEERS, bench.case("s_4_6", 64), effort)
    goals = {"plain": 5.0, "deepspeed": 8.0}
    outcome.lines += compare(title, samples, Measure("wall_s", "wall s/step", least_ratio=goals))
    return outcome


def _wall_s(samples: Samples) -> dict[str, float]:
    """Of a step, by those who took part."""
    return {
        name: statistics.median(sample["wall_s"] for sample in by_round)
        for name, by_round in samples.items()
        if by_round
    }


def _shares(title: str, data_s: Mapping[str, float], step_s: Mapping[str, float]) -> list[Line]:
    """What preparing a batch takes of a step, if the GPU does nothing else meanwhile."""
    shares = {path: data_s[path] / step_s[of] for path, of in _DATA_PATHS.items() if path in data_s and of in step_s}
    return [
        Line(f"{title}: {path}", "of a step", share, goal=f"<= {_MOST_OF_STEP:.0%}", is_met=share <= _MOST_OF_STEP)
        for path, share in shares.items()
    ]


def _goals(bench: Bench, outcome: Outcome, title: str, case: Case, rate: float) -> list[Line]:
    flops = flops_of_clip(case)
    used = rate * flops / bench.peak_flops["bf16"]
    outcome.notes.append(utilisation_note(title, rate, flops, bench.peak_flops))
    least, least_used = _CLIPS_PER_SECOND.get(case.size), _UTILISATION.get(case.size)
    return [
        Line(title, "clips/s", rate, goal="" if least is None else f">= {least:,}", is_met=_is_met(rate, least)),
        Line(
            title,
            "model-FLOPs utilisation",
            used,
            goal="" if least_used is None else f">= {least_used:.0%}",
            is_met=_is_met(used, least_used),
        ),
    ]


def _is_met(value: float, least: float | None) -> bool | None:
    return None if least is None else value >= least
