"""A training step from end to end, data path included: CPU time and wall time."""

import statistics

import torch

from benchmarks.alternation import Samples
from benchmarks.bench import Bench, Outcome
from benchmarks.case import Case
from benchmarks.figures import COMPILED, OWN, Measure, compare
from benchmarks.rows.arithmetic import flops_of_clip, utilisation_note

_ALL = (OWN, "plain", "deepspeed", "plain_fp32", "accelerate")
_WITH_RANKS = _ALL[:4]
_QUICK = _ALL[:3]
_GOALS = {0.3: 1.7, 0.0: 1.2}


def measure_step(bench: Bench) -> Outcome:
    """One process, `s_4_6`, micro-batch 32, with dropout and without."""
    outcome = Outcome()
    for dropout, goal in list(_GOALS.items())[: 1 if bench.effort.is_quick else None]:
        title = f"step s_4_6, dropout {dropout}"
        case = bench.case("s_4_6", 4 if bench.effort.is_quick else 32, dropout)
        names = _QUICK if bench.effort.is_quick else _ALL
        if dropout == 0:
            names = (*names, COMPILED)  # with dropout in the graph it is slower on a CPU
        samples = bench.contest(outcome, title, bench.affordable(outcome, title, names), case)
        goals = dict.fromkeys(("plain", "deepspeed", "accelerate"), goal)
        outcome.lines += compare(title, samples, Measure("cpu_s", "CPU s/step", least_ratio=goals))
        outcome.lines += compare(title, samples, Measure("wall_s", "wall s/step"))
        _note(bench, outcome, title, samples, case)
    return outcome


def measure_two_ranks(bench: Bench) -> Outcome:
    """Two processes that exchange gradients by gloo; CPU time is that of both."""
    outcome = Outcome()
    title = "step s_4_6, 2 ranks"
    if torch.cuda.device_count() == 1:
        outcome.notes.append(f"{title}: skipped: each rank needs a GPU of its own, and there is one")
        return outcome
    case = bench.case("s_4_6", 4 if bench.effort.is_quick else 32)
    names = bench.affordable(outcome, title, _QUICK if bench.effort.is_quick else _WITH_RANKS)
    samples = bench.contest(outcome, title, names, case, world_size=2)
    goals = dict.fromkeys(("plain", "deepspeed"), 1.8)
    outcome.lines += compare(title, samples, Measure("cpu_s", "CPU s/step", least_ratio=goals))
    outcome.lines += compare(title, samples, Measure("wall_s", "wall s/step", least_ratio=goals))
    _note(bench, outcome, title, samples, case, world_size=2)
    return outcome


def measure_overhead(bench: Bench) -> Outcome:
    """A model so small that what is around it counts."""
    outcome = Outcome()
    title = "step t_4_2, micro-batch 4"
    case = bench.case("t_4_2", 4)
    samples = bench.contest(outcome, title, _QUICK if bench.effort.is_quick else _WITH_RANKS, case)
    goals = {"plain": 1 / 1.05, "deepspeed": 1.2}
    outcome.lines += compare(title, samples, Measure("cpu_s", "CPU s/step", least_ratio=goals))
    outcome.lines += compare(title, samples, Measure("wall_s", "wall s/step"))
    _note(bench, outcome, title, samples, case)
    return outcome


def _note(bench: Bench, outcome: Outcome, title: str, samples: Samples, case: Case, world_size: int = 1) -> None:
    """How much of the machine was used, and whether all learn alike."""
    losses = [
        f"{name} {statistics.fmean(sample['loss'] for sample in by_round[len(by_round) // 2 :]):.3f}"
        for name, by_round in samples.items()
        if by_round
    ]
    outcome.notes.append(f"{title}: mean loss in the second half: {', '.join(losses)}")
    flops = flops_of_clip(case)
    for name, by_round in samples.items():
        if by_round:
            wall_s = statistics.median(sample["wall_s"] for sample in by_round)
            rate = case.micro_batch * world_size / wall_s
            outcome.notes.append(utilisation_note(f"{title}: {name}", rate, flops, bench.peak_flops, world_size))
