"""What training minimises and what validation measures: the part of a task that the loop sees."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ds_trainer.errors import TaskError
from ds_trainer.problems import shown

RESERVED_NAMES = frozenset(
    {"kind", "epoch", "step", "split", "is_best", "loss", "train_loss", "val_loss", "learning_rate", "grad_norm"}
    | {"skipped_steps", "seconds", "examples_per_second", "flops_utilisation", "by_group", "num_examples"}
    | {"temperature", "calibration_error", "calibration_error_without_temperature"}
)
"""What the record of a run says beside the metrics: one of such a name would take its place."""


def _summarise_nothing(measures_NM: Tensor) -> dict[str, float]:
    return {}


@dataclass(frozen=True)
class Objective:
    """A loss, and what to keep of each example so that metrics are exact at any world size.

    Metrics are computed from one row an example and never averaged over batches or ranks: a mean of means is not the
    mean when the last batch is shorter.

    Args:
        loss: (outputs, targets) -> float[B], one loss an example, not averaged. A micro-batch that lacks examples is
            filled up with copies of others, which do not count; a loss across the batch sees them all the same.
        measure: (outputs, targets) -> [B, M], the numbers to keep of each example, such as its target and its
            prediction; None: none.
        training_loss: what training minimises where that is another, such as one that weighs classes; None: `loss`.
        summarise: [N, M] measures of a whole split, in the order of its examples -> named metrics; none of them has a
            name of `RESERVED_NAMES`.
    """

    loss: Callable[[Any, Any], Tensor]
    measure: Callable[[Any, Any], Tensor] | None = None
    summarise: Callable[[Tensor], dict[str, float]] = _summarise_nothing
    training_loss: Callable[[Any, Any], Tensor] | None = None

    def minimised(self, outputs: Any, targets: Any) -> Tensor:
        """float[B], what training minimises of each example."""
        return (self.training_loss or self.loss)(outputs, targets)

    def rows(self, outputs: Any, targets: Any, num_examples: int) -> Tensor:
        """float64[B, 1 + M], what is kept of each example: its loss, and what is measured.

        Raises:
            TaskError: they are not one of each example.
        """
        losses_B = _one_each(self.loss(outputs, targets), num_examples)
        if self.measure is None:
            return losses_B[:, None].double()
        measures_BM = self.measure(outputs, targets).to(losses_B.device)
        if measures_BM.ndim != 2 or len(measures_BM) != num_examples:
            raise TaskError(
                f"the task's objective: measure gives the shape {tuple(measures_BM.shape)}, expected "
                f"({num_examples}, M): M numbers of each example"
            )
        return torch.cat([losses_B[:, None].double(), measures_BM.double()], dim=1)

    def metrics(self, measures_NM: Tensor) -> dict[str, float]:
        """What `summarise` makes of measures, as plain numbers.

        Raises:
            TaskError: it is not numbers by name, or a name is taken.
        """
        named = self.summarise(measures_NM)
        if not isinstance(named, Mapping) or not all(isinstance(name, str) for name in named):
            raise TaskError(f"the task's objective: summarise gives {shown(named)}, expected a dictionary by name")
        taken = sorted(RESERVED_NAMES & named.keys())
        if taken:
            raise TaskError(
                f"the task's objective: summarise names a metric {taken[0]!r}, which the record of a run uses for its "
                "own; give it another name"
            )
        return {name: _number(name, value) for name, value in named.items()}


def _number(name: str, value: Any) -> float:
    try:
        return float(value)  # also a tensor or an array of one number
    except (TypeError, ValueError, RuntimeError):
        raise TaskError(f"the task's objective: metric {name!r}: found {shown(value)}, expected a number") from None


def total(losses_B: Tensor, weight_B: Tensor) -> Tensor:
    """The sum of the losses, by weight.

    Raises:
        TaskError: they are not one of each example.
    """
    return (_one_each(losses_B, len(weight_B)) * weight_B).sum()


def _one_each(losses: Tensor, num_examples: int) -> Tensor:
    if losses.shape != (num_examples,):
        raise TaskError(
            f"the task's objective: loss gives the shape {tuple(losses.shape)}, expected ({num_examples},): one number "
            "of each example, not their mean (in torch, reduction='none'), and the mean or sum over all other axes"
        )
    return losses
