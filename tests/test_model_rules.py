"""Models that cannot be trained are refused by the name of the weight, with what to do."""

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from ds_trainer.errors import ModelError
from ds_trainer.model_rules import refuse_untrainable

PLAIN: dict[str, Any] = {"zero_optimization": {"stage": 1}}
DIVIDED: dict[str, Any] = {"zero_optimization": {"stage": 3}}


class Weights(nn.Module):
    def __init__(self, *weights: torch.Tensor, is_trained: bool = True):
        super().__init__()
        self.own = nn.ParameterList(nn.Parameter(weight, requires_grad=is_trained) for weight in weights)


def scripted() -> nn.Module:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return nn.Sequential(nn.Linear(2, 2), torch.jit.script(nn.Linear(2, 2)))


REFUSED = {
    "lazy": (nn.Sequential(nn.LazyLinear(4)), ["0.weight has no shape yet", "0.bias has no shape yet"]),
    "complex": (Weights(torch.zeros(3, dtype=torch.complex64)), ["own.0 is complex64, which DeepSpeed does not train"]),
    "sparse": (nn.Sequential(nn.Embedding(4, 2, sparse=True)), ["0 has sparse gradients, which cannot be clipped"]),
    "frozen": (Weights(torch.zeros(3), is_trained=False), ["no weight is trained"]),
    "empty": (nn.Identity(), ["no weight is trained"]),
}
INDIVISIBLE = {
    "number": (Weights(torch.zeros(2), torch.tensor(1.0)), "own.1 is a single number, which ZeRO-3 cannot divide"),
    "nothing": (Weights(torch.zeros(2), torch.zeros(0, 3)), "own.1 holds no numbers, which ZeRO-3 cannot divide"),
    "scripted": (scripted(), "1 is scripted, so ZeRO-3 cannot reach its weights"),
}


@pytest.mark.parametrize("config", [PLAIN, DIVIDED], ids=["stage 1", "stage 3"])
@pytest.mark.parametrize(("model", "problems"), REFUSED.values(), ids=REFUSED)
def test_refused_at_every_stage(model: nn.Module, problems: list[str], config: dict[str, Any]) -> None:
    with pytest.raises(ModelError) as caught:
        refuse_untrainable(model, config)
    assert len(caught.value.problems) == len(problems)
    for found, expected in zip(caught.value.problems, problems, strict=True):
        assert found.startswith(f"the task's model: {expected}")
        assert ";" in found, "what to do stands behind"


@pytest.mark.parametrize(("model", "problem"), INDIVISIBLE.values(), ids=INDIVISIBLE)
def test_refused_where_weights_are_divided(model: nn.Module, problem: str) -> None:
    refuse_untrainable(model, PLAIN)
    with pytest.raises(ModelError, match=f"{problem}; .*or use stage 1 or 2"):
        refuse_untrainable(model, DIVIDED)


def test_frozen_weights_may_be_of_any_type() -> None:
    model = nn.ModuleList([nn.Linear(2, 2), Weights(torch.zeros(3, dtype=torch.complex64), is_trained=False)])
    refuse_untrainable(model, PLAIN)


def test_many_problems_are_cut_short() -> None:
    with pytest.raises(ModelError) as caught:
        refuse_untrainable(nn.Sequential(*(nn.LazyLinear(1) for _ in range(100))), PLAIN)
    assert "more problems like these" in caught.value.problems[-1]
