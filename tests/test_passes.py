"""Small training splits passed several times in an epoch: who is seen how often, by which random numbers."""

from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ds_trainer.batches import Batch, BatchLoader, ShardedSampler
from ds_trainer.passes import passed_enough
from ds_trainer.randomness import Draw


class Letters(Dataset[str]):
    """Five examples with names, fetched one by one."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> str:
        return "abcde"[index]

    def name_of(self, index: int) -> str:
        return f"letter {self[index]}"


class FetchedAtOnce(Letters):
    """The same, fetched as whole batches."""

    def __getitems__(self, indices: list[int]) -> list[str]:
        return [self[index].upper() for index in indices]


def prepare(items: list[str], device: torch.device, draw: Draw | None) -> tuple[tuple[Tensor, ...], list[str]]:
    assert draw is not None
    return (draw.uniform("augmentation"),), items


def epoch(dataset: Dataset[str], number: int = 0) -> list[Batch]:
    sampler = ShardedSampler(len(dataset), micro_batch=4, seed=0)  # type: ignore[arg-type]
    sampler.set_epoch(number)
    return list(BatchLoader(dataset, sampler, prepare, collate=list))


def seen(batches: list[Batch]) -> list[tuple[str, float]]:
    """Each example that counts and its random number."""
    return [
        (letter, float(drawn))
        for batch in batches
        for letter, drawn in list(zip(batch.targets, batch.inputs[0], strict=True))[: batch.source.num_real]
    ]


@pytest.mark.parametrize(("min_clips", "passes"), [(0, 1), (5, 1), (6, 2), (10, 2), (11, 3), (100, 20)])
def test_each_example_is_passed_as_often_as_it_takes(min_clips: int, passes: int) -> None:
    letters = Counter(letter for letter, _ in seen(epoch(passed_enough(Letters(), min_clips))))
    assert letters == dict.fromkeys("abcde", passes)


def test_each_pass_is_augmented_anew() -> None:
    dataset = passed_enough(Letters(), 15)
    drawn = [number for batches in (epoch(dataset), epoch(dataset, 1)) for _, number in seen(batches)]
    assert len(set(drawn)) == len(drawn) == 2 * 15


def test_first_pass_draws_what_a_single_one_would() -> None:
    assert set(seen(epoch(Letters()))) < set(seen(epoch(passed_enough(Letters(), 15))))


def test_examples_keep_their_names_and_are_fetched_at_once() -> None:
    dataset = passed_enough(FetchedAtOnce(), 15)
    batches = epoch(dataset)
    loader = BatchLoader(dataset, ShardedSampler(15, micro_batch=4, seed=0), prepare, collate=list)
    for batch in batches:
        names = [loader.name_of(index) for index in batch.source.indices]
        assert names == [f"letter {letter.lower()}" for letter in batch.targets]
        assert "".join(batch.targets).isupper()


def test_nothing_is_repeated_where_there_is_nothing() -> None:
    assert len(passed_enough([], 15)) == 0  # type: ignore[arg-type]
