"""Unit: weights that give exact means, and random numbers that a resume repeats."""

import multiprocessing
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sharding import ranks, shapes, thorough
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from ds_trainer.batches import Batch, BatchLoader, ShardedSampler, name_of
from ds_trainer.errors import TaskError
from ds_trainer.randomness import Draw, seed_torch


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


def test_names_that_are_no_utf8_can_be_written() -> None:
    """batch.json holds the names of a bad batch, and replay reads it strictly."""

    class Files(TensorDataset):
        def name_of(self, index: int) -> str:
            return os.fsdecode(b"caf\xe9.npy")

    assert name_of(Files(torch.zeros(1)), 0) == "caf\\udce9.npy"


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


@pytest.fixture
def by_a_fork_server() -> Iterator[None]:
    """How Python starts processes by itself from 3.14 on."""
    multiprocessing.set_start_method("forkserver", force=True)
    yield
    multiprocessing.set_start_method(None, force=True)


@pytest.mark.usefixtures("by_a_fork_server")
def test_worker_processes_fetch_from_a_data_set_that_cannot_be_sent_to_them() -> None:
    """As that of a notebook's cell, or one that holds a generator, a lock or an open file."""
    (loader,) = loaders(7, 1, 3, seed=None)
    loader.dataset.held = threading.Lock()  # type: ignore[attr-defined]
    loader.num_workers = 1
    assert next(iter(loader)).inputs[0].tolist() == [0, 1, 4]


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


def test_inputs_are_a_tuple() -> None:
    batches = BatchLoader(
        TensorDataset(torch.ones(12, 2)), ShardedSampler(12, 4), lambda items, device, draw: (*items, None)
    )
    with pytest.raises(TaskError, match=r"prepare: gives Tensor as inputs, expected a tuple .*; write \(inputs,\) if"):
        next(iter(batches))
