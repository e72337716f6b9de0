"""Unit: losses and ranks by hand, and metrics that do not depend on batches or on the order of examples."""

import math
import warnings

import numpy as np
import pytest
import torch

from ds_trainer.classification import (
    balanced_weights,
    class_scores,
    classification_objective,
    confusion_matrix,
    measure,
    summarise,
)
from ds_trainer.errors import TaskError


def rows(*pairs: tuple[int, int]) -> torch.Tensor:
    """Measures of examples given as (target, prediction)."""
    return torch.tensor([(target, int(target != prediction), prediction) for target, prediction in pairs]).double()


def test_loss_is_cross_entropy_of_each_example_in_fp32() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]], dtype=torch.bfloat16)
    loss = classification_objective(2).loss(logits, torch.tensor([0, 0]))
    assert loss.dtype == torch.float32
    expected = torch.tensor([math.log(2), math.log(1 + math.exp(logits[1, 1]))])
    torch.testing.assert_close(loss, expected)


def test_label_smoothing_spreads_a_fraction_of_the_target_over_all_classes() -> None:
    logits = torch.tensor([[0.0, math.log(3)]])
    expected = 0.95 * -math.log(1 / 4) + 0.05 * -math.log(3 / 4)
    loss = classification_objective(2, label_smoothing=0.1).loss(logits, torch.tensor([0]))
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(2, 4), (2, 2), (2, 3, 5)])
def test_an_output_of_the_wrong_width_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(TaskError, match=r"expected \(2, 3\); give the model 3 outputs"):
        classification_objective(3).loss(torch.zeros(shape), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("logits", "target", "rank", "prediction"),
    [
        ([0.1, 0.9, 0.5], 1, 0, 1),
        ([0.1, 0.9, 0.5], 2, 1, 1),
        ([0.1, 0.9, 0.5], 0, 2, 1),
        ([0.7, 0.7, 0.7], 0, 0, 0),
        ([0.7, 0.7, 0.7], 2, 2, 0),
        ([0.1, 0.7, 0.7], 2, 1, 1),
        ([-math.inf, 0.0, -math.inf], 2, 2, 1),
        ([math.nan, math.nan, math.nan], 0, 5, 1),
        ([math.nan] * 7, 6, 7, 0),
        ([0.1, math.nan, 0.5], 1, 5, 2),
        ([0.1, math.nan, 0.5], 2, 1, 1),
    ],
)
def test_rank_counts_the_classes_ahead_of_the_target(
    logits: list[float], target: int, rank: int, prediction: int
) -> None:
    measured = measure(torch.tensor([logits]), torch.tensor([target]))
    assert measured.dtype == torch.float64
    assert measured.tolist() == [[target, rank, prediction]]


def test_rank_zero_and_a_right_prediction_are_the_same_fact_among_ties() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 4, (500, 30), generator=generator).to(torch.bfloat16)
    targets = torch.randint(0, 30, (500,), generator=generator)
    target, rank, prediction = measure(logits, targets).unbind(1)
    assert 0 < (rank == 0).sum() < 500
    assert torch.equal(rank == 0, target == prediction)
    # A stable sort is the definition of the order; where the target stands in it is the rank.
    order = logits.float().argsort(dim=1, descending=True, stable=True)
    assert torch.equal(rank, (order == targets[:, None]).double().argmax(1).double())


@pytest.mark.parametrize("num_classes", [2, 3, 5, 9])
def test_a_model_that_diverged_has_no_hits(num_classes: int) -> None:
    summary = summarise(measure(torch.full((4, num_classes), math.nan), torch.tensor([0, 1, 1, 0])))
    assert summary == {"top1": 0.0, "top5": 0.0, "macro_f1": 0.0}


def test_summarise_by_hand() -> None:
    logits = torch.eye(7)[[0, 1, 1, 2]] + torch.linspace(0, -0.1, 7)
    summary = summarise(measure(logits, torch.tensor([0, 0, 1, 6])))
    # Class 0: one of two found, nothing else taken for it: 2/3. Class 1: found, and taken once more: 2/3. Class 6: 0.
    assert summary == {"top1": 0.5, "top5": 0.75, "macro_f1": pytest.approx((2 / 3 + 2 / 3 + 0) / 3)}


def test_macro_f1_is_over_the_classes_that_have_examples() -> None:
    assert summarise(rows((0, 0), (1, 1)))["macro_f1"] == 1.0
    # Class 9 has no examples: class 0 pays for the stray prediction, but 9 is no third class with a score of 0.
    assert summarise(rows((0, 0), (0, 9), (1, 1)))["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)


def test_metrics_do_not_depend_on_batches_or_on_the_order_of_examples() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, targets = torch.randn(203, 26, generator=generator), torch.randint(0, 26, (203,), generator=generator)
    whole = measure(logits, targets)
    batches = [measure(*batch) for batch in zip(torch.split(logits, 16), torch.split(targets, 16), strict=True)]
    shuffled = whole[torch.randperm(203, generator=generator)]
    for other in (torch.cat(batches), torch.cat(batches[::-1]), shuffled):
        assert summarise(other) == summarise(whole)
        assert np.array_equal(confusion_matrix(other, 26), confusion_matrix(whole, 26))


def test_confusion_matrix_has_true_classes_as_rows() -> None:
    counts = confusion_matrix(rows((0, 2), (0, 2), (0, 0), (2, 1)), 4)
    assert counts.dtype == np.int64
    assert counts.tolist() == [[1, 0, 2, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_classes_without_examples_or_predictions_score_zero_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measures = rows(*((sign, sign) for sign in range(0, 20, 2)))  # as many classes as examples
        summarise(measures)
        confusion_matrix(measures, 30)
        scores = class_scores(measures, 30)
    assert scores.support.tolist() == [1, 0] * 10 + [0] * 10
    assert scores.f1.tolist() == [1.0, 0.0] * 10 + [0.0] * 10
    assert scores.support.dtype == np.int64


def test_balanced_weights_let_each_class_count_alike() -> None:
    targets_N = torch.tensor([0] * 6 + [1] * 3 + [3])
    weights_S = balanced_weights(targets_N, 5)
    assert weights_S[[2, 4]].tolist() == [0, 0]
    of_class = torch.zeros(5).index_add_(0, targets_N, weights_S[targets_N])
    torch.testing.assert_close(of_class[[0, 1, 3]], torch.full((3,), 10 / 3))
    assert weights_S[targets_N].mean() == pytest.approx(1.0), "the learning rate means what it did"


def test_weights_are_of_training_alone() -> None:
    logits_BS, targets_B = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    plain = classification_objective(3, 0.1)
    weighted = classification_objective(3, 0.1, torch.tensor([0.5, 2.0, 1.0]))
    assert torch.equal(weighted.loss(logits_BS, targets_B), plain.loss(logits_BS, targets_B))
    expected_B = plain.loss(logits_BS, targets_B) * torch.tensor([0.5, 2.0, 1.0, 2.0])
    assert torch.equal(weighted.minimised(logits_BS, targets_B), expected_B)
    assert torch.equal(plain.minimised(logits_BS, targets_B), plain.loss(logits_BS, targets_B))
