"""What training minimises and what validation measures: the part of a task that the loop sees."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def _measure_nothing(outputs: Any, targets: Any) -> Tensor:
    return torch.zeros(len(targets), 0)


def _summarise_nothing(measures_NM: Tensor) -> dict[str, float]:
    return {}


@dataclass(frozen=True)
class Objective:
    """A loss, and what to keep of each example so that metrics are exact at any world size.

    Metrics are computed from one row an example and never averaged over batches or ranks: a mean of means is not the
    mean when the last batch is shorter.

    Args:
        loss: (outputs, targets) -> float[B], one loss an example, not averaged.
        measure: (outputs, targets) -> [B, M], the numbers to keep of each example, such as its target and its
        prediction.
        training_loss: what training minimises where that is another, such as one that weighs classes; None: `loss`.
        summarise: [N, M] measures of a whole split, in the order of its examples -> named metrics.
    """

    loss: Callable[[Any, Any], Tensor]
    measure: Callable[[Any, Any], Tensor] = _measure_nothing
    summarise: Callable[[Tensor], dict[str, float]] = _summarise_nothing
    training_loss: Callable[[Any, Any], Tensor] | None = None

    def minimised(self, outputs: Any, targets: Any) -> Tensor:
        """float[B], what training minimises of each example."""
        return (self.training_loss or self.loss)(outputs, targets)
