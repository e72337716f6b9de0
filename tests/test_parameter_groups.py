"""Weights at parts of the learning rate: which groups they are in, and a run of them, told, continued and refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import ROOT, done_here, train_here
from torch import nn

from ds_trainer import job
from ds_trainer.engine.flat_model import FlatModel
from ds_trainer.engine.parameter_groups import (
    Treatment,
    described,
    full_learning_rate,
    parameter_groups,
    treatments,
)
from ds_trainer.errors import TaskError
from ds_trainer.settings import combined_settings
from ds_trainer.task_rules import refuse_untrainable
from ds_trainer.tasks.toy.task import ToySettings, ToyTask

RUN = ["--deepspeed_config", ROOT / "ds_configs" / "fp32.json", "--num_points", "60", "--record_every_steps", "1"]


def slow_first(name: str) -> float:
    return 0.1 if name.startswith("0.") else 1


def small_model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4), nn.Linear(4, 2).requires_grad_(False), nn.Linear(4, 2))


def test_a_model_whose_weights_are_treated_alike_has_two_groups() -> None:
    model = nn.Linear(4, 2)
    groups = parameter_groups(model.parameters(), treatments(model, lambda name: 1.0), 0.5)
    assert [(group["lr"], group.get("weight_decay")) for group in groups] == [(0.5, None), (0.5, 0.0)]
    assert [parameter.ndim for group in groups for parameter in group["params"]] == [2, 1]


@pytest.mark.parametrize("is_flat", [False, True])
def test_each_rate_has_groups_of_its_own_the_full_one_first(is_flat: bool) -> None:
    model = small_model()
    of_weight = treatments(model, slow_first)
    module: nn.Module = model
    if is_flat:
        module = flat = FlatModel(model, 10**6, None, of_weight)
        assert [flat.treatment_of(own) for own in flat.flats] == [
            Treatment(True, 1.0), Treatment(True, 0.1), Treatment(False, 1.0), Treatment(False, 0.1)
        ]  # fmt: skip
        of_weight = flat.treatment_of
    groups = parameter_groups(module.parameters(), of_weight, 0.5)
    assert [(group["lr"], "weight_decay" in group) for group in groups] == [
        (0.5, False), (0.5, True), (0.05, False), (0.05, True)
    ]  # fmt: skip
    sizes = [sum(parameter.numel() for parameter in group["params"]) for group in groups]
    assert sizes == [2 * 64 + 8, 2 * 16 + 2, 16, 4]


def test_frozen_weights_are_treated_in_no_way() -> None:
    """What a task would say of them is refused of others alone: see below."""
    factors = {name: 1.0 for name, weight in small_model().named_parameters() if weight.requires_grad}
    treatments(small_model(), factors.__getitem__)
    assert described(small_model(), factors.__getitem__) == []


def test_the_rate_that_is_recorded_is_that_of_factor_1() -> None:
    groups = parameter_groups(nn.Linear(4, 2).parameters(), lambda weight: Treatment(weight.ndim > 1, 0.25), 0.5)
    assert groups[0]["lr"] == 0.125
    assert full_learning_rate(groups) == 0.5
    groups[0]["last_lr"] = 0.0625
    assert full_learning_rate(groups) == 0.25


def test_parts_of_the_rate_are_told() -> None:
    assert described(small_model(), lambda name: 1) == []
    assert described(small_model(), slow_first) == ["learning rate: x 0.1 for 20 parameters, x 1 for 170 parameters"]


@pytest.mark.parametrize("factor", [0, -0.1, float("nan"), float("inf"), "0.1", None])
def test_a_part_of_the_learning_rate_is_a_number_above_0(factor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    asked: list[str] = []
    task = ToyTask(combined_settings(ToySettings)(deepspeed_config=Path("unused"), num_points=20))
    factor_of = lambda name: asked.append(name) or (1 if name == "1.bias" else factor)  # noqa: E731
    monkeypatch.setattr(task, "learning_rate_factor", factor_of)
    with pytest.raises(TaskError) as caught:
        refuse_untrainable(task, model, {"zero_optimization": {"stage": 1}})
    found = f"found {factor!r} for 1.weight, expected a number above 0; requires_grad_(False) freezes it"
    assert caught.value.problems == [f"the task's learning_rate_factor: {found}"]
    assert asked == ["1.weight", "1.bias"], "nothing is asked of frozen weights"


class SlowFirst(ToyTask):
    """Its first layer is trained at a tenth of the rate."""

    def learning_rate_factor(self, name: str) -> float:
        return 0.1 if name == "layers.0.weight" else 1.0


def lines_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.any_device
def test_a_run_goes_on_with_the_rates_that_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [*RUN, "--task", "test_parameter_groups:SlowFirst", "--warmup_epochs", "1", "--plateau_patience", "0"]
    log = train_here(*flags, "--num_epochs", "4", "--runs_dir", tmp_path / "whole")
    assert "learning rate: x 0.1 for 64 parameters" in log
    train_here(*flags, "--num_epochs", "2", "--runs_dir", tmp_path / "parts")
    (whole,), (parts,) = ((tmp_path / name).iterdir() for name in ("whole", "parts"))
    train_here(*flags, "--num_epochs", "4", "--resume", parts)
    keys = ("kind", "step", "loss", "learning_rate", "grad_norm")
    found, expected = ([{key: line.get(key) for key in keys} for line in lines_of(run)] for run in (parts, whole))
    assert [line for line in found if line["kind"] == "step"] == [line for line in expected if line["kind"] == "step"]
    weights = [torch.load(run / "best.pth", weights_only=True)["state_dict"] for run in (whole, parts)]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name

    monkeypatch.setattr(SlowFirst, "learning_rate_factor", lambda task, name: 0.2 if name == "layers.0.weight" else 1)
    text = done_here(job.main, *flags, "--num_epochs", "5", "--resume", parts, status=2)
    assert "the resume point is of weights at [1.0, 1.0, 0.1] of the learning rate, now [1.0, 1.0, 0.2]" in text
