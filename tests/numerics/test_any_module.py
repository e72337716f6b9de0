"""Modules of any kind train through the engine as they do without it, and all ranks hold the same of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import run_ranks
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from ds_trainer.engine.precision import has_fast_bf16
from numerics import module_worker
from numerics.modules import INDIVISIBLE, MODULES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Results = dict[tuple[Any, ...], Any]
CASES = [(name, stage) for name in MODULES for stage in range(4) if stage < 3 or name not in INDIVISIBLE]


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Results]]:
    """Outcomes of all ranks, by world size."""
    out = tmp_path_factory.mktemp("modules")
    found = {}
    for world_size in (1, 2):
        run_ranks(Path(module_worker.__file__), world_size, [out], timeout_s=240)
        found[world_size] = [
            torch.load(out / f"rank_{rank}_of_{world_size}.pt", weights_only=False) for rank in range(world_size)
        ]
    return found


def plain(name: str, factor: Callable[[str], float] = lambda name: 1.0) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses and the state at the end, without an engine. What a step does not use has a gradient of 0, not none."""
    model = module_worker.new_module(name)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight], "lr": 0.01 * factor(own), "weight_decay": 0.01 if weight.ndim > 1 else 0.0}
        for own, weight in model.named_parameters()
        if weight.requires_grad
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.01, weight_decay=0.01)
    losses = []
    for inputs, targets in module_worker.batches():
        loss = cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        for weight in trained:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses, model.state_dict()


@pytest.mark.parametrize(("name", "stage"), CASES)
def test_trains_like_plain_pytorch(results: dict[int, list[Results]], name: str, stage: int) -> None:
    losses, state = plain(name)
    found = results[1][0][name, "fp32", stage]
    assert found["losses"] == pytest.approx(losses, abs=1e-5)
    assert found["state"].keys() == state.keys()
    torch.testing.assert_close(dict(found["state"]), dict(state), atol=1e-5, rtol=0)
    halves = results[1][0][name, "bf16", stage]["losses"]
    assert halves == pytest.approx(losses, rel=0.03), "bf16 has three digits"


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("name", ["Normed", "Buffers"])
def test_each_weight_has_the_learning_rate_that_the_task_gives_it(
    results: dict[int, list[Results]], name: str, stage: int
) -> None:
    losses, state = plain(name, module_worker.factor_by_layer)
    found = results[1][0][name, "fp32 by layer", stage]
    assert found["losses"] == pytest.approx(losses, abs=1e-5)
    torch.testing.assert_close(dict(found["state"]), dict(state), atol=1e-5, rtol=0)
    assert results[1][0][name, "bf16 by layer", stage]["losses"] == pytest.approx(losses, rel=0.03)
    first, second = (rank[name, "bf16 by layer", stage] for rank in results[2])
    assert torch.equal(first["logits"], second["logits"])


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_offloaded_gradients_are_those_of_the_step(results: dict[int, list[Results]], stage: int) -> None:
    losses, state = plain("Seldom")
    found = results[1][0]["Seldom", "offloaded", stage]
    assert found["losses"] == pytest.approx(losses, abs=1e-5)
    torch.testing.assert_close(dict(found["state"]), dict(state), atol=1e-5, rtol=0)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_running_statistics_stay_float32(results: dict[int, list[Results]], stage: int) -> None:
    buffers = results[1][0]["Normed", "bf16", stage]["buffers"]
    assert {buffers[name].dtype for name in buffers if "running" in name} == {torch.float32}
    _, expected = plain("Normed")
    for name in expected:
        if "running" in name:
            torch.testing.assert_close(buffers[name], expected[name], atol=0.01, rtol=0.02)


def test_other_buffers_have_the_precision_of_the_arithmetic(results: dict[int, list[Results]]) -> None:
    buffers = results[1][0]["Buffers", "bf16", 1]["buffers"]
    assert buffers["table"].dtype == (torch.bfloat16 if has_fast_bf16() else torch.float32)
    assert buffers["count"].dtype == torch.int64
    assert int(buffers["count"]) == module_worker.NUM_STEPS


@pytest.mark.parametrize(("name", "stage"), CASES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_ranks_hold_and_answer_the_same(
    results: dict[int, list[Results]], name: str, precision: str, stage: int
) -> None:
    first, second = (rank[name, precision, stage] for rank in results[2])
    assert first["losses"] != second["losses"], "each rank sees examples of its own"
    for buffer in first["buffers"].keys() - {"seen"}:
        assert torch.equal(first["buffers"][buffer], second["buffers"][buffer]), buffer
    assert torch.equal(first["logits"], second["logits"])


@pytest.mark.parametrize("name", MODULES)
def test_what_is_saved_is_what_was_validated(results: dict[int, list[Results]], name: str) -> None:
    for rank in results[2]:
        model = module_worker.new_module(name)
        model.load_state_dict(results[2][0][name, "fp32", 1]["state"])
        torch.testing.assert_close(
            model.eval()(module_worker.batches()[0][0]), rank[name, "fp32", 1]["logits"], atol=1e-6, rtol=0
        )


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_run_saves_the_statistics_that_it_validates(results: dict[int, list[Results]], world_size: int) -> None:
    for rank in results[world_size]:
        validated, saved = rank["validated", "saved"]
        assert saved == pytest.approx(validated, abs=1e-7)


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_skipped_step_leaves_nothing_in_running_statistics(
    results: dict[int, list[Results]], world_size: int, precision: str
) -> None:
    for rank in results[world_size]:
        state = rank["poisoned"][precision]
        assert all(value.isfinite().all() for value in state.values())
        assert (state["0.running_mean"] != 0).all(), "the other steps are in them"
