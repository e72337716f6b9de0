"""The learning rate that each step takes: warm-up, plateau and cool-down together."""

from types import SimpleNamespace

import pytest
import torch

from ds_trainer.engine.engine import learning_rate
from ds_trainer.plateau import build_plateau, rate_fraction, warm_up_and_cool_down


def test_each_step_takes_a_fraction_of_what_the_plateau_says_which_is_there_again_behind_it() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    engine = SimpleNamespace(basic_optimizer=optimizer, global_steps=0)
    plateau = build_plateau(engine, factor=0.5, patience=0)  # type: ignore[arg-type]
    warm_up_and_cool_down(engine, num_steps=8, num_warmup=4, num_cooldown=2)  # type: ignore[arg-type]
    moved, recorded = [], []
    for step in range(8):
        engine.global_steps = step
        weight.grad, before = torch.ones(1), weight.item()
        optimizer.step()
        moved.append(before - weight.item())
        recorded.append(learning_rate(engine))  # type: ignore[arg-type]
        if step in (0, 1):  # the second loss is no lower: half the rate, and in the warm-up, too
            plateau.step(1.0)
            assert optimizer.param_groups[0]["lr"] == (1.0, 0.5)[step]
    assert moved == pytest.approx([1 / 4, 2 / 4, 3 / 8, 1 / 2, 1 / 2, 1 / 2, 1 / 2, 1 / 4])
    assert recorded == pytest.approx(moved)


@pytest.mark.parametrize(("num_warmup", "num_cooldown", "moved"), [(0, 2, [1, 1, 1 / 2]), (2, 0, [1 / 2, 1, 1])])
def test_each_of_both_works_without_the_other(num_warmup: int, num_cooldown: int, moved: list[float]) -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    engine = SimpleNamespace(basic_optimizer=torch.optim.SGD([weight], lr=1.0), global_steps=0)
    warm_up_and_cool_down(engine, 3, num_warmup, num_cooldown)  # type: ignore[arg-type]
    weight.grad = torch.ones(1)
    for step, expected in enumerate(moved):
        engine.global_steps, before = step, weight.item()
        engine.basic_optimizer.step()
        assert before - weight.item() == pytest.approx(expected)


def test_a_cool_down_longer_than_the_run_takes_all_of_it() -> None:
    fractions = [rate_fraction(step, num_steps=4, num_warmup=0, num_cooldown=8) for step in range(6)]
    assert fractions == [1, 3 / 4, 2 / 4, 1 / 4, 0, 0]


def test_a_warm_up_that_is_not_over_when_the_cool_down_begins_ends_there() -> None:
    fractions = [rate_fraction(step, num_steps=4, num_warmup=4, num_cooldown=4) for step in range(4)]
    assert fractions == [1 / 4, 2 / 4, 2 / 4, 1 / 4]
