"""Confidences that mean what they say: of answers given with 0.8, four in five are right.

One number does it, a temperature that all logits are divided by (Guo et al. 2017, arXiv 1706.04599): it changes no
answer. It is fitted on the validation split and judged on the test split. Where validation has the signers of training,
it knows nothing of how unsure to be with a stranger; the error on the test split tells.

Axes: B examples of a batch, N examples of a split, S classes, G temperatures.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ds_trainer.batches import BatchLoader
from ds_trainer.objective import Objective
from ds_trainer.validation import Metrics, validate

NUM_BINS = 15
"""Of confidences, each as wide, as in the paper."""

_NUM_COLUMNS = 3
_LOWEST, _HIGHEST, _NUM_TEMPERATURES = 0.05, 20.0, 121
_LEAST_EXAMPLES = 10


@dataclass(frozen=True)
class Calibration:
    """How well confidences fit on a split.

    Args:
        temperature: what logits are divided by.
        error_before, error_after: expected calibration error without and with it, 0 to 1.
        confidence_N: of each example's answer, with it.
        is_right_N: bool[N], whether that answer was right.
    """

    temperature: float
    error_before: float
    error_after: float
    confidence_N: Tensor
    is_right_N: Tensor


def fit_temperature(model: Callable[..., Any], batches: BatchLoader) -> float:
    """The temperature at which the logits of `model` are likeliest on a split. Collective.

    Of N examples, a share of 1 / (N + 2) of each target is spread over all classes, as of one more wrong answer (Platt
    1999, "Probabilistic outputs for support vector machines"): a model that makes no mistake on few examples is not
    certain of all others. Of fewer than ten examples with finite logits nothing is learnt: the temperature is 1. (One
    with a class that a model rules out, by a logit of -inf, is infinitely unlikely at any.)

    The likelihood is measured at many temperatures at once, example by example like any other metric, so that the
    result is the same on any number of ranks; between them a parabola finds the lowest point.
    """
    unsure = 1 / (batches.sampler.num_examples + 2)
    scale_G = torch.logspace(math.log10(_LOWEST), math.log10(_HIGHEST), _NUM_TEMPERATURES)

    def measure(logits_BS: Tensor, targets_B: Tensor) -> Tensor:
        columns = [
            functional.cross_entropy(logits_BS.float() / scale, targets_B, reduction="none", label_smoothing=unsure)
            for scale in scale_G.tolist()
        ]
        return torch.stack(columns, dim=1)

    loss_NG = validate(model, Objective(_no_loss, measure), batches).measures_NM
    loss_NG = loss_NG[loss_NG.isfinite().all(1)]
    if len(loss_NG) < _LEAST_EXAMPLES:
        return 1.0
    loss_G = loss_NG.mean(0)
    lowest = int(loss_G.argmin())
    if lowest in (0, _NUM_TEMPERATURES - 1):
        return float(scale_G[lowest])
    before, at, behind = loss_G[lowest - 1 : lowest + 2].tolist()
    bend = before - 2 * at + behind
    step = 0.5 * (before - behind) / bend if bend > 0 else 0.0
    log_step = math.log(_HIGHEST / _LOWEST) / (_NUM_TEMPERATURES - 1)
    return float(scale_G[lowest]) * math.exp(step * log_step)


def with_confidence(objective: Objective, temperature: float) -> Objective:
    """The objective, which keeps three more numbers of each example: they are what `calibration_of` reads."""

    def measure(logits_BS: Tensor, targets_B: Tensor) -> Tensor:
        assert objective.measure is not None, "as `task_rules` has it where there are classes"
        measures_BM = objective.measure(logits_BS, targets_B)
        logits_BS = logits_BS.float()
        raw_B, tempered_B = (logits.softmax(1).amax(1) for logits in (logits_BS, logits_BS / temperature))
        is_right_B = (logits_BS.argmax(1) == targets_B).float()
        return torch.cat([measures_BM, torch.stack([raw_B, tempered_B, is_right_B], dim=1).to(measures_BM)], dim=1)

    return Objective(objective.loss, measure, lambda measures_NM: objective.summarise(measures_NM[:, :-_NUM_COLUMNS]))


def calibration_of(metrics: Metrics, temperature: float) -> tuple[Metrics, Calibration]:
    """What was measured `with_confidence`, apart: the metrics without it, and how well confidences fit."""
    measures_NM, own_N3 = metrics.measures_NM[:, :-_NUM_COLUMNS], metrics.measures_NM[:, -_NUM_COLUMNS:]
    raw_N, tempered_N, right_N = own_N3.unbind(1)
    is_right_N = right_N > 0
    calibration = Calibration(
        temperature=temperature,
        error_before=expected_calibration_error(raw_N, is_right_N),
        error_after=expected_calibration_error(tempered_N, is_right_N),
        confidence_N=tempered_N,
        is_right_N=is_right_N,
    )
    return replace(metrics, measures_NM=measures_NM), calibration


def expected_calibration_error(confidence_N: Tensor, is_right_N: Tensor) -> float:
    """How far confidence and accuracy are apart, bin by bin of confidence, weighted by the examples in each.

    NaN where a confidence is.
    """
    if bool(confidence_N.isnan().any()):
        return math.nan
    return sum(
        abs(confidence - accuracy) * number / len(confidence_N)
        for confidence, accuracy, number in reliability(confidence_N, is_right_N)
    )


def reliability(confidence_N: Tensor, is_right_N: Tensor) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and number of examples of each bin that has any."""
    bin_N = (confidence_N * NUM_BINS).ceil().clamp(1, NUM_BINS)
    found = []
    for number in range(1, NUM_BINS + 1):
        is_in_N = bin_N == number
        if bool(is_in_N.any()):
            accuracy = is_right_N[is_in_N].double().mean().item()
            found.append((confidence_N[is_in_N].mean().item(), accuracy, int(is_in_N.sum())))
    return found


def _no_loss(outputs: Tensor, targets_B: Tensor) -> Tensor:
    return torch.zeros(len(targets_B), device=outputs.device)
