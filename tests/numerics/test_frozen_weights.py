"""A resume point holds frozen weights once and the buffers of each rank, and both come back."""

from pathlib import Path
from typing import Any

import pytest
import torch
from launching import run_ranks

from numerics import frozen_worker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[int, dict[str, Any]]]:
    out = tmp_path_factory.mktemp("frozen")
    run_ranks(Path(frozen_worker.__file__), 2, [out])
    return [torch.load(out / f"rank_{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("stage", range(4))
def test_frozen_weights_are_kept_once_and_buffers_once_a_rank(
    ranks: list[dict[int, dict[str, Any]]], stage: int
) -> None:
    first, second = ranks[0][stage]["others"]
    assert {name for name in first.keys() - second.keys() if name.startswith("frozen.")} == {
        f"frozen.{layer}.{name}" for layer in (0, 1) for name in ("weight", "bias")
    }
    assert second.keys() == ranks[1][stage]["before"]["buffers"].keys()
    assert not torch.equal(first["last.0.running_mean"], second["last.0.running_mean"])


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("how", ["continued", "continued from an earlier version"])
def test_frozen_weights_and_the_buffers_of_each_rank_come_back(
    ranks: list[dict[int, dict[str, Any]]], stage: int, how: str
) -> None:
    for of_rank in ranks:
        before, after = of_rank[stage]["before"], of_rank[stage][how]
        torch.testing.assert_close(after, before, atol=0, rtol=0)
