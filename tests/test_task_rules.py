"""What a task gives that cannot be trained is refused by its name, with what to do."""

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from ds_trainer.errors import DataError, TaskError
from ds_trainer.objective import Objective, total
from ds_trainer.settings import combined_settings
from ds_trainer.task_rules import refuse_misdescribed, refuse_untrainable, refuse_unusable
from ds_trainer.tasks.toy.task import SpiralNet, ToySettings, ToyTask

TASK = ToyTask(combined_settings(ToySettings)(deepspeed_config=Path("unused"), num_points=20))
PLAIN: dict[str, Any] = {"zero_optimization": {"stage": 1}}
DIVIDED: dict[str, Any] = {"zero_optimization": {"stage": 3}}


class Weights(nn.Module):
    def __init__(self, *weights: torch.Tensor, is_trained: bool = True):
        super().__init__()
        self.own = nn.ParameterList(nn.Parameter(weight, requires_grad=is_trained) for weight in weights)


def with_buffer(buffer: torch.Tensor, is_saved: bool = True) -> nn.Module:
    model = nn.Linear(2, 2)
    model.register_buffer("mask", buffer, persistent=is_saved)
    return model


def scripted() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), torch.jit.script(nn.Linear(2, 2)))


REFUSED = {
    "lazy": (nn.Sequential(nn.LazyLinear(4)), ["0.weight has no shape yet", "0.bias has no shape yet"]),
    "complex": (Weights(torch.zeros(3, dtype=torch.complex64)), ["own.0 is complex64, which DeepSpeed does not train"]),
    "sparse": (nn.Sequential(nn.Embedding(4, 2, sparse=True)), ["0 has sparse gradients, which cannot be clipped"]),
    "sparse buffer": (with_buffer(torch.eye(3).to_sparse()), ["mask is a sparse buffer, which is not sent"]),
    "shown often": (with_buffer(torch.ones(1).expand(3, 3)), ["mask is a buffer that shows one number in many places"]),
    "frozen": (Weights(torch.zeros(3), is_trained=False), ["no weight is trained"]),
    "empty": (nn.Identity(), ["no weight is trained"]),
}
INDIVISIBLE = {
    "number": (Weights(torch.zeros(2), torch.tensor(1.0)), "own.1 is a single number, which ZeRO-3 cannot divide"),
    "nothing": (Weights(torch.zeros(2), torch.zeros(0, 3)), "own.1 holds no numbers, which ZeRO-3 cannot divide"),
    "scripted": (scripted(), "1 is scripted, so ZeRO-3 cannot reach its weights"),
}


def changed(name: str, value: Any) -> ToyTask:
    task = copy.copy(TASK)
    setattr(task, name, value)
    return task


def test_one_class_cannot_be_learnt() -> None:
    with pytest.raises(DataError, match="found one class, 'hello', expected two or more"):
        refuse_unusable(changed("class_names", ["hello"]))


def test_what_is_none_is_missing_and_a_loss_alone_is_no_objective() -> None:
    for name in ("train_set", "val_set", "objective"):
        with pytest.raises(TaskError, match=f"^the task's {name}: missing, expected to be set in __init__"):
            refuse_unusable(changed(name, None))
    with pytest.raises(TaskError, match=r"^the task's objective: found a CrossEntropyLoss, expected .*Objective\(loss"):
        refuse_unusable(changed("objective", nn.CrossEntropyLoss()))


@pytest.mark.parametrize("config", [PLAIN, DIVIDED], ids=["stage 1", "stage 3"])
@pytest.mark.parametrize(("model", "problems"), REFUSED.values(), ids=REFUSED)
def test_refused_at_every_stage(model: nn.Module, problems: list[str], config: dict[str, Any]) -> None:
    with pytest.raises(TaskError) as caught:
        refuse_untrainable(TASK, model, config)
    assert len(caught.value.problems) == len(problems)
    for found, expected in zip(caught.value.problems, problems, strict=True):
        assert found.startswith(f"the task's model: {expected}")
        assert ";" in found, "what to do stands behind"


@pytest.mark.parametrize(("model", "problem"), INDIVISIBLE.values(), ids=INDIVISIBLE)
def test_refused_where_weights_are_divided(model: nn.Module, problem: str) -> None:
    refuse_untrainable(TASK, model, PLAIN)
    with pytest.raises(TaskError, match=f"{problem}; .*or use stage 1 or 2"):
        refuse_untrainable(TASK, model, DIVIDED)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_that_are_built_in_another_precision_than_is_trained_in_are_refused(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).to(dtype))
    for config in (PLAIN, DIVIDED, {**PLAIN, "torch_autocast": {"enabled": True, "dtype": "bfloat16"}}):
        with pytest.raises(TaskError, match=r"^the task's model: 1\.weight and 1 more are \w+, expected float32, .*; "):
            refuse_untrainable(TASK, model, config)
    refuse_untrainable(TASK, model, {**PLAIN, "bf16": {"enabled": True}})
    model[1].requires_grad_(False)
    refuse_untrainable(TASK, model, PLAIN)


def test_frozen_weights_may_be_of_any_type() -> None:
    model = nn.ModuleList([nn.Linear(2, 2), Weights(torch.zeros(3, dtype=torch.complex64), is_trained=False)])
    refuse_untrainable(TASK, model, PLAIN)


@pytest.mark.parametrize(
    "model",
    [
        with_buffer(torch.eye(3).to_sparse(), is_saved=False),
        with_buffer(torch.ones(1).expand(3, 3), is_saved=False),
        with_buffer(torch.arange(5).expand(1, -1)),
        with_buffer(torch.zeros(0, 3)),
    ],
    ids=["sparse, not saved", "shown often, not saved", "positions", "nothing"],
)
def test_buffers_that_can_be_copied_are_left_alone(model: nn.Module) -> None:
    refuse_untrainable(TASK, model, PLAIN)


def test_many_problems_are_cut_short() -> None:
    with pytest.raises(TaskError) as caught:
        refuse_untrainable(TASK, nn.Sequential(*(nn.LazyLinear(1) for _ in range(100))), PLAIN)
    assert "more problems like these" in caught.value.problems[-1]


def test_names_of_classes_need_an_objective_that_measures_them() -> None:
    task = copy.copy(TASK)
    task.objective = Objective(task.objective.loss)
    with pytest.raises(
        TaskError, match="measures nothing, though there are class_names; take classification_objective"
    ):
        refuse_untrainable(task, nn.Linear(2, 2), PLAIN)
    task.class_names = None
    refuse_untrainable(task, nn.Linear(2, 2), PLAIN)


@pytest.mark.parametrize(
    ("described", "problem"),
    [
        ({"num_hidden": 8}, r"layers\.0\.weight: found \(8, 2\), expected the model of build_model; .*: \(32, 2\)"),
        ({}, r"fails \(TypeError: .*'num_hidden'.*\), expected the model of build_model; description has to hold all"),
    ],
)
def test_description_of_another_model(described: dict[str, Any], problem: str) -> None:
    task = copy.copy(TASK)
    refuse_misdescribed(task, task.build_model())
    rest = {name: value for name, value in task.description().items() if name != "num_hidden"}
    vars(task)["description"] = lambda: {**rest, **described}
    with pytest.raises(TaskError, match=f"^the task's model_from: {problem}"):
        refuse_misdescribed(task, TASK.build_model())


class OnlyOnTheHost(ToyTask):
    """Looks at its weights while it is built, which have no numbers without memory."""

    @classmethod
    def model_from(cls, description: Mapping[str, Any]) -> nn.Module:
        model = super().model_from(description)
        assert next(model.parameters())[0, 0].item() < 10
        return model


def test_description_of_a_model_that_needs_memory() -> None:
    task = OnlyOnTheHost(TASK.settings)
    refuse_misdescribed(task, task.build_model())
    with pytest.raises(TaskError, match="expected the model of build_model"):
        refuse_misdescribed(task, SpiralNet(8, 3, 0.0))


@pytest.mark.parametrize("shape", [(), (1,), (4, 1), (4, 3), (3,)])
def test_losses_are_one_of_each_example(shape: tuple[int, ...]) -> None:
    problem = r"loss gives the shape \(.*\), expected \(4,\): one number of each example, not their mean"
    with pytest.raises(TaskError, match=problem):
        total(torch.zeros(shape), torch.ones(4))
    with pytest.raises(TaskError, match=problem):
        Objective(lambda outputs, targets: torch.zeros(shape)).rows(None, None, 4)


@pytest.mark.parametrize("shape", [(4,), (3, 2), (4, 2, 1), ()])
def test_measures_are_rows_of_each_example(shape: tuple[int, ...]) -> None:
    objective = Objective(lambda outputs, targets: torch.zeros(4), lambda outputs, targets: torch.zeros(shape))
    with pytest.raises(TaskError, match=r"measure gives the shape \(.*\), expected \(4, M\)"):
        objective.rows(None, None, 4)


def test_targets_of_any_kind_need_no_measure() -> None:
    objective = Objective(lambda outputs, targets: outputs - targets["sum"])
    rows = objective.rows(torch.arange(4.0), {"sum": torch.ones(4), "names": list("abcd")}, 4)
    assert rows.tolist() == [[-1], [0], [1], [2]]
    assert rows.dtype == torch.float64


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        yield 1


class SizedStream(Stream):
    def __len__(self) -> int:
        return 1


UNUSABLE = {
    "label": ({"label": lambda: "a/b"}, "label: found 'a/b', expected a few words"),
    "no label": ({"label": lambda: ""}, "label: found '', expected a few words"),
    "groups": ({"groups": lambda dataset: ["a"]}, "groups: found 1 for the 12 examples of the training split"),
    "description": ({"description": lambda: {"path": Path("x")}}, "description: expected plain values"),
    "function": ({"description": lambda: {"f": lambda: 0}}, "description: expected plain values"),
    "tensor": (
        {"description": lambda: {"t": torch.ones(1)}},
        "description: expected plain values (Object of type Tensor",
    ),
    "stream": ({"train_set": Stream()}, "training split: found a Stream, expected a map-style data set, with __len__"),
    "stream with a length": ({"val_set": SizedStream()}, "validation split: found a SizedStream, expected a map-style"),
    "loader": ({"test_set": DataLoader(TASK.val_set)}, "test split: found a DataLoader, expected a map-style data set"),
}


@pytest.mark.parametrize(("changes", "problem"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_would_be_found_out_later_is_told_at_once(changes: dict[str, Any], problem: str) -> None:
    task = copy.copy(TASK)
    refuse_unusable(task)
    vars(task).update(changes)
    with pytest.raises(TaskError, match=re.escape(f"the task's {problem}")):
        refuse_unusable(task)


@pytest.mark.parametrize("split", ["train_set", "val_set"])
def test_empty_splits(split: str) -> None:
    task = copy.copy(TASK)
    task.test_set = TensorDataset(torch.zeros(0, 2), torch.zeros(0))
    refuse_unusable(task)
    setattr(task, split, task.test_set)
    with pytest.raises(DataError, match=r"^the .* split is empty, expected at least one example$"):
        refuse_unusable(task)
    vars(task)["settings"] = SimpleNamespace(split="all")
    with pytest.raises(DataError, match=r"^--split all: the .* split is empty, .*; choose another$"):
        refuse_unusable(task)
