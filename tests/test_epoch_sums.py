"""Unit: what is summed over an epoch, what is left out, and what each rank goes on with after a stop in its middle."""

import math

import pytest
import torch

from ds_trainer.run.epoch_sums import EpochSums

STATE = {
    "num_steps": 5,
    "losses_and_examples": [[1.0, 2.0], [3.0, 4.0]],
    "num_skipped": 1.0,
    "norm": 8.0,
    "learning_rate": 0.5,
}


def test_loss_that_is_not_finite_counts_no_examples() -> None:
    sums = EpochSums.of_nothing()
    for loss, num_examples in ((math.nan, 4), (6.0, 3), (math.inf, 2)):
        sums.add_loss(torch.tensor(loss), num_examples)
    assert sums.loss_and_examples().tolist() == [6.0, 3.0]


def test_skipped_steps_do_not_count_in_the_mean_of_the_norm() -> None:
    sums = EpochSums.of_nothing()
    for norm, skipped in ((1.0, 0.0), (math.inf, 1.0), (3.0, 0.0)):
        sums.add_step(torch.tensor(norm), learning_rate=0.1)
        sums.add_skipped(torch.tensor(skipped))
    assert sums.mean_gradient_norm() == 2.0
    assert sums.state_dict() == {
        "num_steps": 3, "losses_and_examples": [[0.0, 0.0]], "num_skipped": 1.0, "norm": 4.0, "learning_rate": 0.1
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rank", "world_size", "own"),
    [(0, 2, [1.0, 2.0]), (1, 2, [3.0, 4.0]), (0, 3, [4.0, 6.0]), (2, 3, [0.0, 0.0]), (0, 1, [4.0, 6.0])],
)
def test_ranks_go_on_with_their_own_and_the_master_with_all_on_another_number_of_them(
    monkeypatch: pytest.MonkeyPatch, rank: int, world_size: int, own: list[float]
) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world_size))
    sums = EpochSums.from_state(STATE)
    assert sums.loss_and_examples().tolist() == own
    assert (sums.num_steps, float(sums.num_skipped), sums.learning_rate) == (5, 1.0, 0.5)
    assert sums.mean_gradient_norm() == 2.0, "four steps were taken"
