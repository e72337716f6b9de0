"""Unit: metrics equal a direct computation over the whole split, whatever the batches."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from ds_trainer.batches import BatchLoader, MicroStep, ShardedSampler
from ds_trainer.errors import TaskError
from ds_trainer.objective import Objective
from ds_trainer.randomness import Draw
from ds_trainer.settings import combined_settings
from ds_trainer.tasks.toy.task import ToySettings, ToyTask
from ds_trainer.validation import validate

NUM_EXAMPLES = 47
VALUES = torch.linspace(-1, 2, NUM_EXAMPLES, dtype=torch.float64)


@pytest.fixture(scope="module")
def task() -> ToyTask:
    settings = combined_settings(ToySettings)(
        deepspeed_config=Path("unused"), task="toy", num_points=5 * NUM_EXAMPLES, dropout=0.5
    )
    return ToyTask(settings)


def in_order(task: ToyTask, micro_batch: int) -> BatchLoader:
    return BatchLoader(task.val_set, ShardedSampler(NUM_EXAMPLES, micro_batch), task.prepare)


def as_they_are(items: Any, device: torch.device, draw: Draw | None) -> tuple[tuple[Tensor, ...], Any]:
    assert draw is None, "validation changes no example"
    return (items[0],), items[0]


def itself(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs


OF_VALUES = Objective(
    loss=itself,
    measure=lambda outputs, targets: torch.stack([outputs, targets.square()], dim=1),
    summarise=lambda measures_NM: {"largest_square": measures_NM[:, 1].max().item()},
)


def values(sampler: ShardedSampler) -> BatchLoader:
    return BatchLoader(TensorDataset(VALUES), sampler, as_they_are)


@pytest.mark.parametrize("micro_batch", [1, 5, 16, 47, 64])
def test_metrics_equal_a_direct_computation(task: ToyTask, micro_batch: int) -> None:
    torch.manual_seed(0)
    model = task.build_model()
    metrics = validate(model, task.objective, in_order(task, micro_batch))
    points, arms = task.val_set.tensors
    with torch.no_grad():
        logits = model.eval()(points)
    losses = cross_entropy(logits, arms, reduction="none")
    torch.testing.assert_close(metrics.losses_N.float(), losses)
    assert metrics.loss == pytest.approx(losses.mean().item(), rel=1e-6)
    assert metrics.named["top1"] == pytest.approx((logits.argmax(1) == arms).float().mean().item())
    assert metrics.measures_NM[:, 0].tolist() == arms.tolist()
    assert metrics.measures_NM[:, 2].tolist() == logits.argmax(1).tolist()


@pytest.mark.parametrize("micro_batch", [1, 2, 10, 46, 47, 48, 200])
def test_examples_that_fill_up_do_not_count(micro_batch: int) -> None:
    """The first example, which fills up, is the only negative one of its size: counted again, the mean would move."""
    metrics = validate(torch.nn.Identity(), OF_VALUES, values(ShardedSampler(NUM_EXAMPLES, micro_batch)))
    assert metrics.loss == VALUES.mean().item(), "to the last bit"
    assert torch.equal(metrics.losses_N, VALUES)
    assert torch.equal(metrics.measures_NM, torch.stack([VALUES, VALUES.square()], dim=1))
    assert metrics.named == {"largest_square": 4.0}


class Showing(ShardedSampler):
    """Shows examples in the order that a test asks for."""

    def __init__(self, order: list[int]):
        super().__init__(NUM_EXAMPLES, micro_batch=1)
        self.order = order

    def __iter__(self) -> Iterator[MicroStep]:
        for number, index in enumerate(self.order):
            yield MicroStep([index], num_real=1, examples_in_step=1, ends_step=True, number=number)


def test_order_of_examples_does_not_matter() -> None:
    metrics = validate(torch.nn.Identity(), OF_VALUES, values(Showing(torch.randperm(NUM_EXAMPLES).tolist())))
    assert torch.equal(metrics.losses_N, VALUES), "rows stand in the order of the split"


@pytest.mark.parametrize(
    "order",
    [[*range(NUM_EXAMPLES), 5], list(range(NUM_EXAMPLES - 1)), [0, *range(NUM_EXAMPLES - 1)]],
    ids=["one twice", "one not at all", "one twice and one not at all"],
)
def test_split_that_is_not_seen_exactly_once_is_an_error(order: list[int]) -> None:
    with pytest.raises(RuntimeError, match=f"saw {len(order)} examples of a split of {NUM_EXAMPLES}"):
        validate(torch.nn.Identity(), OF_VALUES, values(Showing(order)))


def test_rank_whose_peers_are_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    loader = values(ShardedSampler(NUM_EXAMPLES, 4))
    with pytest.raises(RuntimeError, match=f"saw 24 examples of a split of {NUM_EXAMPLES}, each of which counts once"):
        validate(torch.nn.Identity(), OF_VALUES, loader)


def test_model_is_left_in_evaluation_mode_and_without_gradients(task: ToyTask) -> None:
    model = task.build_model().train()
    first, second = (validate(model, task.objective, in_order(task, 8)) for _ in range(2))
    assert not model.training
    assert torch.equal(first.losses_N, second.losses_N), "dropout is off"
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not first.losses_N.requires_grad


def test_loss_that_is_not_finite_is_not_hidden() -> None:
    with_nan = VALUES.clone()
    with_nan[3] = torch.nan
    loader = BatchLoader(TensorDataset(with_nan), ShardedSampler(NUM_EXAMPLES, 4), as_they_are)
    assert torch.isnan(torch.tensor(validate(torch.nn.Identity(), OF_VALUES, loader).loss))


def test_objective_without_measures() -> None:
    metrics = validate(torch.nn.Identity(), Objective(loss=itself), values(ShardedSampler(NUM_EXAMPLES, 4)))
    assert metrics.named == {}
    assert metrics.measures_NM.shape == (NUM_EXAMPLES, 0)
    assert metrics.loss == VALUES.mean().item()


def test_measures_that_are_as_wide_as_their_batch_are_refused() -> None:
    """As those of a task that keeps the tokens of sentences, padded to the longest of a batch."""
    wide = replace(OF_VALUES, measure=lambda outputs, targets: torch.zeros(len(outputs), 1 + int(outputs[0] > 0)))
    told = r"measure gives 1 numbers of each example in one batch and 2 in another, expected the same in each"
    with pytest.raises(TaskError, match=told):
        validate(torch.nn.Identity(), wide, values(ShardedSampler(NUM_EXAMPLES, 10)))
