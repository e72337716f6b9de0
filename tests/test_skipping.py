"""Unit: which optimizers can leave an update out because a number on the device says so."""

from typing import Any

import pytest

from ds_trainer.engine.skipping import skips_on_device


@pytest.mark.parametrize(
    ("params", "zero", "expected"),
    [
        ({}, {}, True),
        ({"fused": True, "torch_adam": True}, {"offload_optimizer": {"device": "none"}}, True),
        ({"fused": False}, {}, False),
        ({"foreach": True}, {}, False),
        ({"foreach": True, "fused": True}, {}, True),
        ({"torch_adam": False}, {}, False),
        ({}, {"offload_optimizer": {"device": "cpu"}}, False),
        ({}, {"offload_optimizer": None}, True),
    ],
)
def test_optimizers_of_torch_that_are_fused_and_not_offloaded(
    params: dict[str, Any], zero: dict[str, Any], expected: bool
) -> None:
    assert skips_on_device({"type": "AdamW", "params": params}, zero) == expected
