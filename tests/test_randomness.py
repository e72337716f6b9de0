"""Unit: random numbers are uniform, independent of one another, and a function of their coordinates alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ds_trainer.randomness import Draw, mixed

NUM_EXAMPLES, NUM_COLUMNS = 20_000, 4
EVERYONE = torch.arange(NUM_EXAMPLES)
# Correlation of independent samples has a standard deviation of 1 / sqrt(n): this is five of them.
LARGEST_CORRELATION = 5 / NUM_EXAMPLES**0.5


def column(seed: int = 0, epoch: int = 0, name: str = "shift", number: int = 0) -> np.ndarray:
    return Draw.of(seed, epoch, EVERYONE).uniform(name, NUM_COLUMNS)[:, number].numpy()


@pytest.mark.parametrize(("seed", "epoch", "name"), [(0, 0, "mirror"), (1, 0, "scale"), (2**31, 99, "")])
def test_numbers_are_uniform(seed: int, epoch: int, name: str) -> None:
    numbers = Draw.of(seed, epoch, EVERYONE).uniform(name, NUM_COLUMNS)
    assert numbers.shape == (NUM_EXAMPLES, NUM_COLUMNS)
    assert numbers.dtype == torch.float32
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers.flatten().numpy(), "uniform").pvalue > 1e-4
    for of_column in numbers.T:
        assert stats.kstest(of_column.numpy(), "uniform").pvalue > 1e-4


def test_numbers_are_uniform_for_neighbours_and_for_few_examples() -> None:
    """The first examples of many epochs: what weak mixing of small numbers would show."""
    first_ones = torch.cat([Draw.of(0, epoch, torch.arange(8)).uniform("shift") for epoch in range(2000)])
    assert stats.kstest(first_ones.flatten().numpy(), "uniform").pvalue > 1e-4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (column(), column(number=1)),
        (column(), column(number=3)),
        (column(), column(name="scale")),
        (column(), column(epoch=1)),
        (column(), column(seed=1)),
        (column(epoch=1), column(seed=1)),
        (column()[1:], column()[:-1]),
        (column()[1:], column(number=1)[:-1]),
    ],
    ids=["columns", "far columns", "names", "epochs", "seeds", "seed and epoch", "neighbours", "diagonal"],
)
def test_numbers_of_other_coordinates_are_independent(one: np.ndarray, other: np.ndarray) -> None:
    assert abs(np.corrcoef(one, other)[0, 1]) < LARGEST_CORRELATION
    quadrants = np.histogram2d(one, other, bins=4, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(quadrants.flatten()).pvalue > 1e-4


@given(st.permutations(range(12)), st.integers(1, 12))
def test_numbers_of_an_example_do_not_depend_on_its_batch(order: list[int], size: int) -> None:
    whole = Draw.of(3, 5, torch.arange(12)).uniform("shift", 2)
    batch = torch.tensor(order[:size])
    assert torch.equal(Draw.of(3, 5, batch).uniform("shift", 2), whole[batch])


def test_drawing_changes_nothing() -> None:
    draw = Draw.of(1, 2, torch.arange(5))
    state = torch.get_rng_state()
    first = draw.uniform("a")
    draw.uniform("b", 3)
    assert torch.equal(draw.uniform("a"), first)
    assert torch.equal(draw.on(torch.device("cpu")).uniform("a"), first)
    assert torch.equal(draw.uniform("a", 3)[:, :1], first), "more columns leave the first as they are"
    assert torch.equal(torch.get_rng_state(), state)


def test_between_has_its_limits() -> None:
    numbers = Draw.of(0, 0, EVERYONE).between("angle", -2.0, 6.0, 2)
    assert -2 <= numbers.min() < -1.99
    assert 5.99 < numbers.max() < 6
    assert numbers.mean().item() == pytest.approx(2, abs=0.1)
    assert torch.equal(Draw.of(0, 0, EVERYONE).between("angle", 1.0, 1.0), torch.ones(NUM_EXAMPLES, 1))


def test_numbers_stay_what_they_are() -> None:
    """A recorded result: another formula would break every run that is resumed with a newer version."""
    numbers = Draw.of(7, 3, torch.tensor([0, 1, 10**6])).uniform("shift", 2)
    recorded = torch.tensor([[8994084, 10398214], [9784438, 9114070], [4670259, 14686317]])
    assert torch.equal(numbers, recorded * 2.0**-24)
    assert mixed(7, 3) == 7733225739302596353


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4))
def test_mixed_is_a_seed_that_torch_accepts(numbers: list[int]) -> None:
    assert 0 <= mixed(*numbers) < 2**63
    torch.Generator().manual_seed(mixed(*numbers))


def test_mixed_seeds_do_not_meet() -> None:
    seeds = {mixed(a, b, c) for a in range(20) for b in range(20) for c in range(20)}
    assert len(seeds) == 20**3
    assert len({mixed(0), mixed(0, 0), mixed(0, 0, 0)}) == 3
    low_bits = np.bincount([mixed(0, epoch) % 16 for epoch in range(16_000)], minlength=16)
    assert stats.chisquare(low_bits).pvalue > 1e-4


def test_coarse_numbers_are_uniform_and_independent_also_those_of_one_hash() -> None:
    numbers = Draw.of(3, 1, EVERYONE).coarse("noise", 6)
    assert numbers.shape == (NUM_EXAMPLES, 6)
    assert numbers.abs().max() < 1
    for of_column in numbers.T:
        assert stats.kstest(of_column.numpy(), "uniform", args=(-1, 2)).pvalue > 1e-4
    correlations = np.corrcoef(numbers.T.numpy()) - np.eye(6)
    assert np.abs(correlations).max() < LARGEST_CORRELATION


def test_coarse_numbers_are_a_function_of_their_coordinates() -> None:
    everyone, some = Draw.of(3, 1, EVERYONE).coarse("noise", 7), torch.tensor([5, 0, 19_999])
    assert torch.equal(Draw.of(3, 1, some).coarse("noise", 7), everyone[some])
    assert torch.equal(Draw.of(3, 1, some).coarse("noise", 9)[:, :7], everyone[some])
    assert not torch.equal(Draw.of(3, 2, some).coarse("noise", 7), everyone[some])
