"""Unit: what DeepSpeed refuses of an engine config is told in a line; other errors stay what they are."""

from collections.abc import Callable

import pytest
import torch
from deepspeed.ops.op_builder.builder import MissingCUDAException
from deepspeed.ops.op_builder.cpu.no_impl import NotImplementedBuilder
from deepspeed.utils.groups import _ensure_divisibility, _get_sequence_parallel_group
from deepspeed.utils.timer import trim_mean
from torch import nn

from ds_trainer.engine.refusals import refusals_told, refuse_unmatched
from ds_trainer.errors import MemoryLimitError, SettingsError


@pytest.mark.parametrize(
    ("refuse", "reason"),
    [
        (NotImplementedBuilder().load, "This op had not been implemented on CPU backend."),
        (lambda: _ensure_divisibility(3, 2), "3 is not divisible by 2"),
    ],
    ids=["raised", "asserted"],
)
def test_what_deepspeed_refuses_is_told_of_the_engine_config(refuse: Callable[[], object], reason: str) -> None:
    with pytest.raises(SettingsError) as told, refusals_told("my.json"):
        refuse()
    expected = f"my.json: refused by DeepSpeed: {reason}; change or remove the key that this is about"
    assert told.value.problems == [expected]
    assert isinstance(told.value.__cause__, ValueError | AssertionError)


@pytest.mark.parametrize(
    "error",
    [
        OSError("CUDA_HOME environment variable is not set. Please set it to your CUDA install root."),  # of torch
        MissingCUDAException("nvcc is not found"),
    ],
)
def test_what_would_need_a_compiler_for_the_gpu_is_told_of_the_engine_config(error: Exception) -> None:
    told = r"my\.json: DeepSpeed would compile .* with nvcc.*install the CUDA toolkit"
    with pytest.raises(SettingsError, match=told), refusals_told("my.json"):
        raise error


def refuse_in_a_model() -> None:
    raise ValueError("the model's own")


@pytest.mark.parametrize(
    ("fail", "expected"),
    [
        (lambda: nn.Linear(2, 2)(torch.ones(3, 3)), RuntimeError),
        (refuse_in_a_model, ValueError),
        (_get_sequence_parallel_group, KeyError),
        (lambda: trim_mean([], 2), AssertionError),
        (lambda: torch.empty(2**50), MemoryLimitError),
    ],
    ids=["of torch", "of the model", "a mistake of DeepSpeed", "without words", "memory"],
)
def test_other_errors_stay_what_they_are(fail: Callable[[], object], expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught, refusals_told("my.json"):
        fail()
    assert "refused" not in str(caught.value)


@pytest.mark.parametrize("pattern", ["running_mean", "1.*var", "mean"])
def test_buffers_that_stay_float32_are_found_by_a_part_of_their_name(pattern: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    refuse_unmatched(model, {"data_types": {"keep_in_fp32_modules": [pattern]}}, "my.json")


@pytest.mark.parametrize(
    ("pattern", "known"),
    [("nope", "known names: 1.running_mean, 1.running_var"), ("running_men", "did you mean"), ("(", "known names")],
)
def test_buffers_that_are_to_stay_float32_and_are_not_there_are_told(pattern: str, known: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(SettingsError) as told:
        refuse_unmatched(model, {"data_types": {"keep_in_fp32_modules": [pattern]}}, "my.json")
    assert str(told.value).startswith(
        f"my.json: data_types.keep_in_fp32_modules: found '{pattern}', expected a part of"
    )
    assert known in str(told.value)
    with pytest.raises(SettingsError, match="there is none; remove it"):
        refuse_unmatched(model[0], {"data_types": {"keep_in_fp32_modules": [pattern]}}, "my.json")
