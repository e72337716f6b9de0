"""Operations and synchronisations of a step: exact, so a few steps say all."""

from dataclasses import replace

from benchmarks.alternation import Samples
from benchmarks.bench import Bench, Outcome
from benchmarks.figures import OWN, Measure, at_most, compare

_MOST_OPERATIONS, _MOST_SYNCHRONISATIONS = 800, 3
_NAMES = (OWN, "plain_fused", "plain", "deepspeed")


def measure_operations(bench: Bench) -> Outcome:
    """Of `s_4_6`; the micro-batch, which changes nothing, is small."""
    outcome = Outcome()
    title = "operations s_4_6"
    effort = replace(bench.effort, rounds=2, steps=1)
    case = bench.case("s_4_6", 4)
    samples = bench.contest(outcome, title, _NAMES, case, effort, is_counted=True)
    data = bench.contest(outcome, f"{title}, data path", ("ds_trainer_data",), case, effort, is_counted=True)
    samples = _with_data_path_apart(samples, data["ds_trainer_data"][-1]["operations"])
    operations = compare(title, samples, Measure("training_operations", "operations/step"))
    outcome.lines += [at_most(line, _MOST_OPERATIONS, f"<= {_MOST_OPERATIONS}") for line in operations]
    outcome.lines += compare(title, samples, Measure("operations", "the same with data path"))
    waits = compare(title, samples, Measure("synchronisations", "synchronisations/step"))
    outcome.lines += [at_most(line, _MOST_SYNCHRONISATIONS, f"<= {_MOST_SYNCHRONISATIONS}") for line in waits]
    for name, by_round in samples.items():
        if len({(sample["operations"], sample["synchronisations"]) for sample in by_round}) > 1:
            outcome.notes.append(f"{title}: {name} does not do the same in every step")
    return outcome


def _with_data_path_apart(samples: Samples, in_data_path: float) -> Samples:
    """The peers prepare batches in numpy, which is not counted: what compares is the rest."""

    def apart(name: str) -> float:
        return in_data_path if name == OWN else 0.0

    return {
        name: [{**sample, "training_operations": sample["operations"] - apart(name)} for sample in by_round]
        for name, by_round in samples.items()
    }
