"""Dropout by bytes: as many are left out as said, the mean stays, and the generator alone decides."""

import pytest
import torch

from ds_trainer.tasks.sign.models.dropout import Dropout, random_bytes


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5, 0.999])
def test_so_many_are_left_out_and_the_mean_stays(fraction: float) -> None:
    torch.manual_seed(0)
    left = Dropout(fraction)(torch.ones(1_000_000))
    rounded = min(round(256 * fraction), 255) / 256
    assert abs(rounded - fraction) <= 1 / 256
    deviation = 5 * (rounded * (1 - rounded) / 1_000_000) ** 0.5
    assert (left == 0).float().mean().item() == pytest.approx(rounded, abs=deviation)
    assert left.mean().item() == pytest.approx(1, abs=deviation / (1 - rounded))
    assert left.unique().tolist() == pytest.approx([0, 1 / (1 - rounded)])


def test_gradient_goes_where_the_value_went() -> None:
    torch.manual_seed(0)
    values = torch.randn(3, 5, 7, requires_grad=True)
    left = Dropout(0.4)(values)
    left.sum().backward()
    assert values.grad is not None
    assert torch.equal(left, values * values.grad)
    assert 0 < (values.grad == 0).sum() < values.numel()


def test_it_is_a_function_of_the_generator() -> None:
    values = torch.ones(1000)
    dropped = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        dropped.append(Dropout(0.3)(values))
    assert torch.equal(dropped[0], dropped[1])
    assert not torch.equal(dropped[0], dropped[2])


def test_nothing_is_left_out_outside_training_or_of_nothing() -> None:
    values = torch.randn(10)
    assert Dropout(0.3).eval()(values) is values
    assert Dropout(0.0)(values) is values


def test_bytes_are_uniform_and_independent_of_their_place_in_a_word() -> None:
    torch.manual_seed(0)
    drawn = random_bytes(8 * 100_000).view(-1, 8).long()
    for place in range(8):
        counts = torch.bincount(drawn[:, place], minlength=256).double()
        chi_squared = ((counts - counts.mean()).square() / counts.mean()).sum().item()
        assert 160 < chi_squared < 370, place  # 255 degrees of freedom: beyond that once in 10^5
    neighbours = torch.corrcoef(drawn.double().T)
    assert (neighbours - torch.eye(8)).abs().max() < 0.02
    assert len(random_bytes(13)) == 13
