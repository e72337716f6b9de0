"""Unit: a temperature that undoes what was done to the logits, errors counted by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from ds_trainer.batches import BatchLoader, ShardedSampler
from ds_trainer.calibration import (
    calibration_of,
    expected_calibration_error,
    fit_temperature,
    reliability,
    with_confidence,
)
from ds_trainer.classification import classification_objective
from ds_trainer.validation import validate

NUM_EXAMPLES, NUM_CLASSES = 4000, 5


def honest(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits whose softmax is the chance of each class, and classes drawn by it."""
    generator = torch.Generator().manual_seed(seed)
    logits_NS = 2 * torch.randn(NUM_EXAMPLES, NUM_CLASSES, generator=generator)
    return logits_NS, torch.multinomial(logits_NS.softmax(1), 1, generator=generator)[:, 0]


def batches(logits_NS: Tensor, targets_N: Tensor, size: int = 64) -> BatchLoader:
    dataset = TensorDataset(logits_NS, targets_N)
    return BatchLoader(dataset, ShardedSampler(len(dataset), size), lambda items, device, draw: ((items[0],), items[1]))


@pytest.mark.parametrize("factor", [0.2, 0.5, 1.0, 3.0, 7.3])
def test_temperature_undoes_a_factor_on_the_logits(factor: float) -> None:
    logits_NS, targets_N = honest()
    as_they_are = fit_temperature(torch.nn.Identity(), batches(logits_NS, targets_N))
    assert as_they_are == pytest.approx(1.0, abs=0.05), "the classes were drawn by them"
    fitted = fit_temperature(torch.nn.Identity(), batches(factor * logits_NS, targets_N))
    assert fitted == pytest.approx(factor * as_they_are, rel=1e-3)


def test_overconfidence_is_measured_and_mended() -> None:
    logits_NS, targets_N = honest()
    sure = batches(4 * logits_NS, targets_N)
    other = batches(*(4 * each if each.is_floating_point() else each for each in honest(seed=1)))
    temperature = fit_temperature(torch.nn.Identity(), other)
    objective = classification_objective(NUM_CLASSES)
    plain = validate(torch.nn.Identity(), objective, sure)
    metrics, calibration = calibration_of(
        validate(torch.nn.Identity(), with_confidence(objective, temperature), sure), temperature
    )
    assert metrics.named == plain.named
    assert torch.equal(metrics.measures_NM, plain.measures_NM)
    assert calibration.error_before > 0.15
    assert calibration.error_after < 0.03
    torch.testing.assert_close(calibration.confidence_N, (4 * logits_NS / temperature).softmax(1).amax(1).double())
    accuracy = (logits_NS.argmax(1) == targets_N).double().mean()
    assert calibration.is_right_N.double().mean() == accuracy, "no answer changes"


def test_error_by_hand() -> None:
    confidence_N = torch.tensor([0.95, 0.95, 0.95, 0.95, 0.5, 0.5])
    is_right_N = torch.tensor([True, True, True, False, True, False])
    assert reliability(confidence_N, is_right_N) == [
        (pytest.approx(0.5), 0.5, 2),
        (pytest.approx(0.95), 0.75, 4),
    ]
    assert expected_calibration_error(confidence_N, is_right_N) == pytest.approx(0.2 * 4 / 6)


def test_without_a_confidence_of_each_answer_there_is_no_error() -> None:
    confidence_N = torch.tensor([0.95, math.nan, 0.5])
    assert reliability(confidence_N, torch.tensor([True, False, True])) == [
        (pytest.approx(0.5), 1.0, 1),
        (pytest.approx(0.95), 1.0, 1),
    ]
    assert math.isnan(expected_calibration_error(confidence_N, torch.tensor([True, False, True])))


def test_too_little_confidence_is_an_error_as_well_and_certainty_shares_the_last_bin() -> None:
    confidence_N = torch.tensor([0.96, 1.0, 0.4, 0.4])
    is_right_N = torch.tensor([True, True, True, False])
    assert [number for *_, number in reliability(confidence_N, is_right_N)] == [2, 2]
    assert expected_calibration_error(confidence_N, is_right_N) == pytest.approx(0.02 * 2 / 4 + 0.1 * 2 / 4)


def test_hopeless_model_has_a_temperature() -> None:
    targets_N = torch.arange(40) % NUM_CLASSES
    wrong_NS = -torch.nn.functional.one_hot(targets_N, NUM_CLASSES).float()
    assert fit_temperature(torch.nn.Identity(), batches(wrong_NS, targets_N)) == pytest.approx(20.0)


@pytest.mark.parametrize(("num_examples", "temperature"), [(9, 1.0), (10, 20.0)])
def test_few_examples_say_nothing_of_confidence(num_examples: int, temperature: float) -> None:
    targets_N = torch.arange(num_examples) % NUM_CLASSES
    wrong_NS = -torch.nn.functional.one_hot(targets_N, NUM_CLASSES).float()
    assert fit_temperature(torch.nn.Identity(), batches(wrong_NS, targets_N)) == pytest.approx(temperature)


def test_a_task_summarises_its_own_measures_alone() -> None:
    own = replace(
        classification_objective(NUM_CLASSES), summarise=lambda measures_NM: {"columns": measures_NM.shape[1]}
    )
    plain, measured = (
        validate(torch.nn.Identity(), objective, batches(*honest())) for objective in (own, with_confidence(own, 2.0))
    )
    assert measured.named == plain.named == {"columns": plain.measures_NM.shape[1]}


@pytest.mark.parametrize("impossible", [math.nan, -math.inf])
def test_examples_with_logits_that_are_not_finite_say_nothing_of_confidence(impossible: float) -> None:
    logits_NS, targets_N = (each[:400] for each in honest())
    expected = fit_temperature(torch.nn.Identity(), batches(logits_NS[1:], targets_N[1:], 400))
    logits_NS[0, targets_N[0] - 1] = impossible
    assert fit_temperature(torch.nn.Identity(), batches(logits_NS, targets_N, 400)) == pytest.approx(expected, rel=0.01)
    logits_NS[9:] = impossible
    assert fit_temperature(torch.nn.Identity(), batches(logits_NS, targets_N, 400)) == 1.0


def test_timid_model_has_a_temperature() -> None:
    logits_NS, targets_N = honest()
    timid = batches(0.01 * logits_NS, targets_N, NUM_EXAMPLES)
    assert fit_temperature(torch.nn.Identity(), timid) == pytest.approx(0.05)


@pytest.mark.parametrize("num_examples", [40, 400])
def test_model_without_a_mistake_is_as_sure_as_the_number_of_examples_allows(num_examples: int) -> None:
    targets_N = torch.arange(num_examples) % NUM_CLASSES
    right_NS = torch.nn.functional.one_hot(targets_N, NUM_CLASSES).float()
    temperature = fit_temperature(torch.nn.Identity(), batches(right_NS, targets_N))
    confidence = (right_NS / temperature).softmax(1).amax(1).mean()
    others = (NUM_CLASSES - 1) / NUM_CLASSES  # of what is spread over all classes
    assert float(confidence) == pytest.approx(1 - others / (num_examples + 2), abs=1e-4)
