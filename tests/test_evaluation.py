"""What is said of a run's best checkpoint, against sums by hand; its confidence is fitted on validation alone."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from cadences import cadence
from own_tasks import Classes, Drawn
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from ds_trainer.calibration import expected_calibration_error, fit_temperature
from ds_trainer.checkpoint import load_checkpoint, write_checkpoint
from ds_trainer.classification import classification_objective
from ds_trainer.evaluation import Results, evaluate_best, model_to_score
from ds_trainer.run.environment import describe_environment
from ds_trainer.run.run_dir import Run
from ds_trainer.validation import in_order

SIGNERS = ["ann", "bob", "bob", "cem", "bob"]
ENGINE_CONFIG = {"train_micro_batch_size_per_gpu": 16, "gradient_clipping": 1.0}


def drawn(num_examples: int, factor: float, seed: int) -> TensorDataset:
    """Logits whose softmax is the chance of each class, times a factor, and classes drawn by it."""
    generator = torch.Generator().manual_seed(seed)
    logits_NS = 2 * torch.randn(num_examples, 3, generator=generator)
    return TensorDataset(factor * logits_NS, torch.multinomial(logits_NS.softmax(1), 1, generator=generator)[:, 0])


class Given(Drawn):
    """Its inputs are the logits: too sure in validation, twice as sure in the test."""

    def __init__(self, num_tested: int = 500) -> None:
        self.train_set, self.val_set, self.test_set = drawn(9, 1, 0), drawn(400, 2, 1), drawn(num_tested, 4, 2)
        self.class_names = ["one", "two", "three"]
        self.objective = classification_objective(3)

    @classmethod
    def model_from(cls, description: Mapping[str, Any]) -> nn.Module:
        return nn.Identity()

    def groups(self, dataset: Any) -> list[str]:
        return [SIGNERS[place % len(SIGNERS)] for place in range(len(dataset))]


def evaluated(task: Given, run_dir: Path) -> Results:
    content = {"task": f"{__name__}:Given", "description": {}, "state_dict": {}, "settings": {}, "engine_config": {}}
    write_checkpoint(run_dir / "best.pth", {**content, "epoch": 6})
    run = Run(run_dir, {}, cadence())
    run.write_provenance({}, ENGINE_CONFIG, {**describe_environment("given"), "job": []})
    run.write_status("running")
    return evaluate_best(run, task, ENGINE_CONFIG)


@pytest.fixture(scope="module")
def task() -> Given:
    return Given()


@pytest.fixture(scope="module")
def scored(task: Given, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """The directory of a run whose best checkpoint was scored, and what was found."""
    run_dir = tmp_path_factory.mktemp("run")
    return run_dir, evaluated(task, run_dir)


def figures(logits_NS: Tensor, targets_N: Tensor) -> dict[str, float]:
    is_right_N = logits_NS.argmax(1) == targets_N
    return {"loss": float(cross_entropy(logits_NS, targets_N)), "top1": float(is_right_N.double().mean())}


def test_whole_and_groups_are_scored_each_on_its_own_examples(task: Given, scored: tuple[Path, Results]) -> None:
    run_dir, results = scored
    logits_NS, targets_N = task.test_set.tensors
    of_example = task.groups(task.test_set)
    found = {"all": results.whole, **results.by_group}
    for name in ("all", *sorted(set(SIGNERS))):
        places = [place for place, group in enumerate(of_example) if name in ("all", group)]
        for figure, expected in figures(logits_NS[places], targets_N[places]).items():
            assert found[name][figure] == pytest.approx(expected), (name, figure)
        assert found[name].get("num_examples", 500) == len(places)
    record = json.loads((run_dir / "metrics.jsonl").read_text())
    assert (record["split"], record["top1"], record["by_group"]) == ("test", results.whole["top1"], results.by_group)


def test_temperature_is_that_of_validation_and_is_kept_with_the_model(
    task: Given, scored: tuple[Path, Results]
) -> None:
    run_dir, results = scored
    of_validation, of_test = (
        fit_temperature(nn.Identity(), in_order(task, dataset, 16)) for dataset in (task.val_set, task.test_set)
    )
    assert of_test > 1.5 * of_validation, "or the test says nothing"
    assert load_checkpoint(run_dir / "best.pth")["temperature"] == of_validation
    logits_NS, targets_N = task.test_set.tensors
    errors = [
        expected_calibration_error((logits_NS / each).softmax(1).amax(1), logits_NS.argmax(1) == targets_N)
        for each in (1.0, of_validation)
    ]
    told = results.details()
    assert told["temperature"] == of_validation
    assert [told["calibration_error_without_temperature"], told["calibration_error"]] == pytest.approx(errors)
    assert "test split, epoch 7" in (run_dir / "report.html").read_text(), "people count from 1"


def test_each_answer_has_a_row(task: Given, scored: tuple[Path, Results]) -> None:
    run_dir, _ = scored
    temperature = load_checkpoint(run_dir / "best.pth")["temperature"]
    logits_NS, targets_N = task.test_set.tensors
    confidence_N, answer_N = (logits_NS / temperature).softmax(1).max(1)
    with (run_dir / "diagnostics" / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = task.class_names
    assert [row["true"] for row in rows] == [names[target] for target in targets_N]
    assert [row["predicted"] for row in rows] == [names[answer] for answer in answer_N]
    assert [row["group"] for row in rows] == task.groups(task.test_set)
    assert [float(row["confidence"]) for row in rows] == pytest.approx(confidence_N.tolist(), abs=1e-6)
    assert [row["is_right"] == "1" for row in rows] == (answer_N == targets_N).tolist()


def test_split_of_one_example_is_scored(tmp_path: Path) -> None:
    evaluated(Given(num_tested=1), tmp_path)
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["split"] == "test"


def test_model_that_is_scored_answers_in_float32() -> None:
    checkpoint = {"task": f"{Classes.__module__}:Classes", "description": {}}
    model = model_to_score({**checkpoint, "state_dict": Classes.model_from({}).state_dict()})
    model.register_forward_hook(lambda module, inputs, outputs: outputs.double(), prepend=True)
    assert model(torch.zeros(2, 3, dtype=torch.float64)).dtype == torch.float32
