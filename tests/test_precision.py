"""Unit: what follows from 16 bits for containers of tensors, buffers and running statistics."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from ds_trainer.engine import precision
from ds_trainer.engine.precision import buffer_dtype, cast_floats, exact_statistics


class Named(NamedTuple):
    logits: Tensor
    rest: Any


@dataclass(frozen=True)
class Frozen:
    logits: Tensor
    name: str = "a"


@dataclass
class Both(OrderedDict[str, Any]):
    """Like the outputs of transformers: a dictionary whose values are attributes as well."""

    logits: Tensor

    def __post_init__(self) -> None:
        self["logits"] = self.logits

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        object.__setattr__(self, key, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return Both, (self.logits,)

    def update(self, *_: Any, **__: Any) -> None:
        raise TypeError("not for users")


HALF = torch.ones(2, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (HALF, lambda cast: cast),
        ((1, [HALF, None]), lambda cast: cast[1][0]),
        ({"a": (HALF,), "b": "text"}, lambda cast: cast["a"][0]),
        (OrderedDict(b=1, a=HALF), lambda cast: cast["a"]),
        (Named(HALF, [1]), lambda cast: cast.logits),
        (Named(HALF, {"x": HALF}), lambda cast: cast.rest["x"]),
        (Frozen(HALF), lambda cast: cast.logits),
        (Both(HALF), lambda cast: cast.logits),
        (Both(HALF), lambda cast: cast["logits"]),
    ],
)
def test_floats_are_cast_in_containers_of_any_kind(value: Any, found: Any) -> None:
    cast = cast_floats(value, torch.float32)
    assert type(cast) is type(value)
    assert found(cast).dtype == torch.float32
    assert found(value).dtype == torch.bfloat16, "what was given stays as it was"


def test_all_else_is_left_alone() -> None:
    for value in (torch.ones(2, dtype=torch.int64), torch.ones(2, dtype=torch.complex64), None, "text", Named):
        assert cast_floats(value, torch.bfloat16) is value


@pytest.mark.parametrize(
    ("config", "is_fast", "expected"),
    [
        ({}, True, None),
        ({"bf16": {"enabled": True}}, True, "bf16"),
        ({"bf16": {"enabled": True}}, False, "fp32"),
        ({"bf16": {"enabled": True}, "zero_optimization": {"stage": 3}}, False, "bf16"),
        ({"fp16": {"enabled": True}}, True, "fp16"),
        ({"bf16": {"enabled": True}, "data_types": {"buffer_dtype": "fp32"}}, True, "fp32"),
        ({"data_types": {"buffer_dtype": "bf16"}}, True, "bf16"),
    ],
)
def test_buffers_follow_the_arithmetic(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], is_fast: bool, expected: str | None
) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda: is_fast)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert buffer_dtype(config) == expected


def test_statistics_and_the_weights_beside_them_stay_exact() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.LayerNorm(2))
    model[1].running_mean.fill_(1.001)
    with exact_statistics(model):
        model.bfloat16()
    assert model[1].running_mean.tolist() == pytest.approx([1.001, 1.001], abs=1e-7)
    assert {value.dtype for value in model[1].state_dict().values()} == {torch.float32, torch.int64}
    assert {value.dtype for value in model[0].parameters()} == {torch.bfloat16}
    assert model[1](torch.ones(3, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16
