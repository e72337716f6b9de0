"""Unit: each example once an epoch, the same examples in a step however it is split, weights that give exact means.

The ranks of a job are built one after another in this process: a sampler reads its rank from the environment.
"""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from ds_trainer.batches import Batch, BatchLoader, MicroStep, ShardedSampler
from ds_trainer.randomness import Draw, seed_torch

shapes = st.tuples(st.integers(1, 40), st.integers(1, 4), st.integers(1, 5), st.integers(1, 3))
"""(examples, world size, micro-batch, accumulation)."""
thorough = settings(max_examples=200, deadline=None)


def ranks(
    num_examples: int, world_size: int, micro_batch: int, accumulation: int = 1, seed: int | None = 0
) -> list[ShardedSampler]:
    """The samplers of all ranks of a job."""
    samplers = []
    for rank in range(world_size):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RANK", str(rank))
            patch.setenv("WORLD_SIZE", str(world_size))
            samplers.append(ShardedSampler(num_examples, micro_batch, accumulation, seed))
    return samplers


def by_step(samplers: Sequence[ShardedSampler]) -> list[list[MicroStep]]:
    """The micro-steps of all ranks, by the step that they belong to."""
    steps: dict[int, list[MicroStep]] = {}
    for sampler in samplers:
        for micro_step in sampler:
            steps.setdefault(micro_step.number // sampler.accumulation, []).append(micro_step)
    assert sorted(steps) == list(range(len(steps)))
    return [steps[number] for number in range(len(steps))]


def counted(micro_steps: Sequence[MicroStep]) -> list[int]:
    """The examples that count, in order of their number."""
    return sorted(index for micro_step in micro_steps for index in micro_step.indices[: micro_step.num_real])


@thorough
@given(shapes, st.sampled_from([None, 0, 7]))
def test_every_example_counts_once_in_an_epoch(shape: tuple[int, int, int, int], seed: int | None) -> None:
    num_examples, _, micro_batch, _ = shape
    micro_steps = [micro_step for sampler in ranks(*shape, seed=seed) for micro_step in sampler]
    assert counted(micro_steps) == list(range(num_examples))
    assert all(len(micro_step.indices) == micro_batch for micro_step in micro_steps), "shapes never change"
    assert all(0 <= index < num_examples for micro_step in micro_steps for index in micro_step.indices)


@thorough
@given(shapes)
def test_ranks_take_the_same_steps_and_end_them_together(shape: tuple[int, int, int, int]) -> None:
    samplers = ranks(*shape)
    _, world_size, micro_batch, accumulation = shape
    plans = [[(micro.examples_in_step, micro.ends_step, micro.number) for micro in sampler] for sampler in samplers]
    assert all(plan == plans[0] for plan in plans), "a rank with another plan would leave the others waiting"
    numbers = [number for _, _, number in plans[0]]
    assert len(set(numbers)) == len(numbers)
    assert sum(ends_step for _, ends_step, _ in plans[0]) == samplers[0].steps_per_epoch
    for micro_steps in by_step(samplers):
        assert {micro_step.examples_in_step for micro_step in micro_steps} == {len(counted(micro_steps))}
        assert len(micro_steps) <= accumulation * world_size
        num_ends = sum(micro_step.ends_step for micro_step in micro_steps)
        assert num_ends == world_size
    assert samplers[0].step_size == world_size * micro_batch * accumulation


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("num_examples", [1, 11, 12, 13, 24, 31])
def test_a_step_has_the_same_examples_however_it_is_split(num_examples: int, seed: int | None) -> None:
    splits = [(1, 12, 1), (1, 4, 3), (2, 6, 1), (2, 3, 2), (3, 4, 1), (4, 3, 1), (4, 1, 3), (1, 1, 12)]
    steps = [
        [counted(micro_steps) for micro_steps in by_step(ranks(num_examples, *split, seed=seed))] for split in splits
    ]
    assert all(other == steps[0] for other in steps)
    assert len(steps[0]) == -(-num_examples // 12)


def test_training_is_shuffled_by_seed_and_epoch_and_validation_is_not() -> None:
    (sampler,) = ranks(30, 1, 30)

    def order(epoch: int) -> list[int]:
        sampler.set_epoch(epoch)
        return next(iter(sampler)).indices

    assert order(0) != order(1)
    assert order(0) == order(0), "an epoch can be repeated"
    (same,), (other) = ranks(30, 1, 30), ranks(30, 1, 30, seed=1)[0]
    assert next(iter(same)).indices == order(0)
    assert next(iter(other)).indices != order(0)
    (in_order,) = ranks(30, 1, 30, seed=None)
    in_order.set_epoch(5)
    assert next(iter(in_order)).indices == list(range(30))


def test_every_example_comes_everywhere() -> None:
    """Over many epochs each example is as often in the first step as any other."""
    (sampler,) = ranks(10, 1, 5)
    first_step: Counter[int] = Counter()
    for epoch in range(400):
        sampler.set_epoch(epoch)
        first_step.update(next(iter(sampler)).indices)
    assert len(first_step) == 10
    assert all(150 < times < 250 for times in first_step.values())  # 200 are expected, with a deviation of 10


@thorough
@given(shapes, st.integers(0, 60))
def test_first_step_continues_exactly(shape: tuple[int, int, int, int], first_step: int) -> None:
    for sampler in ranks(*shape):
        sampler.set_epoch(2)
        whole = list(sampler)
        sampler.set_epoch(2, first_step)
        assert list(sampler) == [micro for micro in whole if micro.number >= first_step * sampler.accumulation]
        sampler.set_epoch(2)
        assert list(sampler) == whole, "the next epoch begins at its first step again"


# -- loader -----------------------------------------------------------------------------------------------------------


def unprepared(items: Any, device: torch.device, draw: Draw | None) -> tuple[tuple[Tensor, ...], Any]:
    (values_B,) = items
    return (values_B.to(device),), draw


def loaders(
    num_examples: int, world_size: int, micro_batch: int, accumulation: int = 1, seed: int | None = 0
) -> list[BatchLoader]:
    dataset = TensorDataset(torch.arange(num_examples).double() ** 2)
    samplers = ranks(num_examples, world_size, micro_batch, accumulation, seed)
    return [BatchLoader(dataset, sampler, unprepared) for sampler in samplers]


@thorough
@given(shapes, st.integers(0, 60))
def test_length_is_of_what_is_still_to_come(shape: tuple[int, int, int, int], first_step: int) -> None:
    for loader in loaders(*shape):
        loader.sampler.set_epoch(2, first_step)
        assert len(loader) == len(list(loader.sampler))


@settings(max_examples=50, deadline=None)
@given(shapes)
def test_weights_and_shares_give_the_mean_of_each_step(shape: tuple[int, int, int, int]) -> None:
    """Summed over micro-steps and averaged over ranks, as the engine does with gradients."""
    num_examples, world_size, _, accumulation = shape
    sums: dict[int, float] = {}
    expected: dict[int, list[float]] = {}
    for loader in loaders(*shape):
        assert len(list(loader)) == len(loader)
        for batch, micro_step in zip(loader, loader.sampler, strict=True):
            step = micro_step.number // accumulation
            (values_B,) = batch.inputs
            loss = (values_B * batch.weight_B).sum().item()
            sums[step] = sums.get(step, 0.0) + loss * batch.share / world_size
            expected.setdefault(step, []).extend(index**2 for index in micro_step.indices[: micro_step.num_real])
    for step, values in expected.items():
        assert sums[step] == pytest.approx(sum(values) / len(values))
    assert sum(len(values) for values in expected.values()) == num_examples


def test_batch_says_who_is_in_it() -> None:
    loader = loaders(5, 2, 2)[1]
    loader.sampler.set_epoch(4)
    first, last = list(loader)
    order = [micro_step.indices for micro_step in loader.sampler]
    for batch, indices in zip((first, last), order, strict=True):
        assert batch.index_B.tolist() == indices
        assert batch.inputs[0].tolist() == [index**2 for index in indices]
        assert torch.equal(batch.targets.uniform("x"), Draw.of(0, 4, torch.tensor(indices)).uniform("x"))
    assert (first.weight_B.tolist(), last.weight_B.tolist()) == ([1, 1], [0, 0])
    assert (first.share, last.share) == (2 / 4, 2 / 1)
    assert (first.ends_step, last.ends_step) == (True, True)


def test_a_micro_batch_is_filled_up_by_different_examples() -> None:
    """Copies of one would spoil the running statistics of batch norms."""
    (sampler,) = ranks(num_examples=9, world_size=1, micro_batch=8)
    last = list(sampler)[-1]
    assert last.num_real == 1
    assert len(set(last.indices)) >= 7
    (sampler,) = ranks(num_examples=3, world_size=1, micro_batch=8)
    assert Counter(Counter(next(iter(sampler)).indices).values()) == {3: 2, 2: 1}


def test_validation_draws_nothing() -> None:
    (loader,) = loaders(5, 1, 2, seed=None)
    batches: list[Batch] = list(loader)
    assert [batch.targets for batch in batches] == [None, None, None]
    assert loader.num_examples == 5
    assert torch.cat([batch.index_B[batch.weight_B > 0] for batch in batches]).tolist() == [0, 1, 2, 3, 4]


def test_dropout_seeds_never_repeat_and_survive_a_resume() -> None:
    seeds = []
    for epoch in range(3):
        for loader in loaders(24, 2, 3, 2):
            loader.sampler.set_epoch(epoch)
            of_epoch = [batch.seed for batch in loader]
            loader.sampler.set_epoch(epoch, first_step=1)
            assert [batch.seed for batch in loader] == of_epoch[2:]
            seeds += of_epoch
    assert len(set(seeds)) == len(seeds) == 3 * 24 // 3


def test_worker_processes_fetch_the_same_batches() -> None:
    (loader,) = loaders(7, 1, 3)
    fetched_here = [batch.inputs[0] for batch in loader]
    loader.num_workers = 1
    fetched_there = [batch.inputs[0] for batch in loader]
    assert all(torch.equal(here, there) for here, there in zip(fetched_here, fetched_there, strict=True))


class Noisy(Dataset[float]):
    """Draws random numbers of its own, from all three generators that people use."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> float:
        return random.random() + float(np.random.rand()) + torch.rand(()).item()


def test_random_numbers_of_a_data_set_are_not_those_of_dropout() -> None:
    class Drawing(Noisy):
        def __getitem__(self, index: int) -> float:
            return torch.rand(()).item()

    loader = BatchLoader(Drawing(), ShardedSampler(12, 3, seed=1), lambda items, device, draw: ((items,), None))
    batch = next(iter(loader))
    seed_torch(batch.seed)
    assert not torch.equal(batch.inputs[0].float(), torch.rand(3))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_random_numbers_of_a_data_set_are_the_same_after_a_resume_in_mid_epoch(num_workers: int) -> None:
    def prepare(items: torch.Tensor, device: torch.device, draw: Draw | None) -> tuple[tuple[torch.Tensor], None]:
        return (items,), None

    loader = BatchLoader(Noisy(), ShardedSampler(12, 3, seed=1), prepare, num_workers=num_workers)
    whole = [batch.inputs[0] for batch in loader]
    loader.sampler.set_epoch(0, first_step=2)
    rest = [batch.inputs[0] for batch in loader]
    assert all(torch.equal(one, other) for one, other in zip(whole[2:], rest, strict=True))
    loader.sampler.set_epoch(1)
    assert not torch.equal(next(iter(loader)).inputs[0], whole[0]), "another epoch draws others"
