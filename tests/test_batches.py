"""Unit: each example once an epoch, the same examples in a step however it is split."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharding import ranks, shapes, thorough

from ds_trainer.batches import MicroStep, ShardedSampler


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
