"""What a classifier answered to each example of a split: as a table for people and programs, and for the page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ds_trainer.batches import name_of
from ds_trainer.calibration import Calibration
from ds_trainer.classification import targets_and_predictions
from ds_trainer.files import write_csv
from ds_trainer.task import Task
from ds_trainer.validation import Metrics


@dataclass(frozen=True)
class Answers:
    """One entry an example, in the order of the split.

    Args:
        names: what a person calls the example.
        groups: such as its signer; empty strings where the task tells none apart.
        measures_NM: what `classification_objective` measures.
        confidence_N: float64[N], of the answer, 0 to 1.
    """

    names: list[str]
    groups: list[str]
    measures_NM: Tensor
    confidence_N: NDArray[np.float64]

    @classmethod
    def of(cls, task: Task, dataset: Dataset[Any], metrics: Metrics, calibration: Calibration) -> "Answers":
        """The answers that were measured on one of the task's data sets."""
        num_examples = len(metrics.measures_NM)
        return cls(
            names=[name_of(dataset, place) for place in range(num_examples)],
            groups=list(task.groups(dataset) or [""] * num_examples),
            measures_NM=metrics.measures_NM,
            confidence_N=calibration.confidence_N.double().numpy(),
        )

    def worst(self, limit: int) -> NDArray[np.int64]:
        """Places of the wrong answers that were given with most confidence, the worst first."""
        wrong = np.flatnonzero(np.not_equal(*targets_and_predictions(self.measures_NM)))
        return wrong[np.argsort(-self.confidence_N[wrong], kind="stable")][:limit]

    def write(self, path: Path, class_names: list[str]) -> None:
        """Write a table with a row an example."""
        answered = zip(*targets_and_predictions(self.measures_NM), self.confidence_N, strict=True)
        rows = [
            (name, group, class_names[true], class_names[predicted], f"{confidence:.6f}", int(true == predicted))
            for name, group, (true, predicted, confidence) in zip(self.names, self.groups, answered, strict=True)
        ]
        write_csv(path, [("name", "group", "true", "predicted", "confidence", "is_right"), *rows])
