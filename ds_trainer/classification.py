"""The objective of classification, and what is counted from its measures: class scores and the confusion matrix.

Axes: B examples of a batch, N examples of a split, M measures of an example, S classes.
"""

# scikit-learn is imported where it is used: it takes 1.5 s (version 1.9.1), which every rank would pay at each start.

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ds_trainer.errors import TaskError
from ds_trainer.objective import Objective

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_TOP = 5


class ClassScores(NamedTuple):
    """One value for each class, [S] each; 0 where a class was never predicted or has no examples."""

    precision: FloatArray
    recall: FloatArray
    f1: FloatArray
    support: IntArray


@dataclass(frozen=True)
class Confusion:
    """`count` of the `support` examples of class `true` were taken for class `predicted`."""

    true: int
    predicted: int
    count: int
    support: int


def balanced_weights(targets_N: Tensor, num_classes: int) -> Tensor:
    """What makes each class count alike: float32[S], in proportion to 1 / its examples, 1 on average over examples.

    A class without examples has weight 0.
    """
    counts_S = torch.bincount(targets_N, minlength=num_classes)
    num_present = int((counts_S > 0).sum())
    weights_S = len(targets_N) / (num_present * counts_S.clamp(min=1))
    return torch.where(counts_S > 0, weights_S, 0.0).float()


def classification_objective(
    num_classes: int, label_smoothing: float = 0.0, weights_S: Tensor | None = None
) -> Objective:
    """Cross-entropy, measured by top-1, top-5 and macro-F1.

    Validation uses the smoothed loss too: a gap between the two curves is then overfitting, never a difference of
    formulas.

    Args:
        label_smoothing: the fraction of each target that is spread evenly over all classes.
        weights_S: float[S], what an example of each class counts in training; validation counts all alike.
    """

    def loss(logits_BS: Tensor, targets_B: Tensor) -> Tensor:
        if logits_BS.shape != (len(targets_B), num_classes):
            # cross_entropy accepts a wider output without a word and trains a model whose answers have no names.
            shapes = f"found shape {tuple(logits_BS.shape)}, expected {(len(targets_B), num_classes)}"
            raise TaskError(f"model output: {shapes}; give the model {num_classes} outputs")
        # In bf16 a loss near 2 moves in steps of 2^-6: too coarse to tell which epoch was better.
        return functional.cross_entropy(logits_BS.float(), targets_B, label_smoothing=label_smoothing, reduction="none")

    def weighted_loss(logits_BS: Tensor, targets_B: Tensor) -> Tensor:
        assert weights_S is not None
        return loss(logits_BS, targets_B) * weights_S.to(targets_B.device, non_blocking=True)[targets_B]

    return Objective(loss, measure, summarise, training_loss=None if weights_S is None else weighted_loss)


def measure(logits_BS: Tensor, targets_B: Tensor) -> Tensor:
    """The target, its rank among the logits (0 is the top) and the prediction of each example: float64[B, 3].

    Equal logits, which are common in bf16, rank by class index, as argmax does: rank 0 and a right prediction are the
    same fact. A target whose logit is NaN ranks behind all classes, and five at least, and the class after it counts as
    the prediction, so that a model that diverged has no hits.
    """
    targets_B1 = targets_B[:, None]
    target_logits_B1 = logits_BS.gather(1, targets_B1)
    num_classes = logits_BS.shape[1]
    class_S = torch.arange(num_classes, device=logits_BS.device)
    is_tied_behind_BS = (logits_BS == target_logits_B1) & (class_S >= targets_B1)
    num_behind_B = ((logits_BS < target_logits_B1) | is_tied_behind_BS).sum(1)  # includes the target itself
    is_known_B = num_behind_B > 0
    rank_B = torch.where(is_known_B, num_classes - num_behind_B, max(num_classes, _TOP))
    predicted_B = torch.where(is_known_B, logits_BS.argmax(1), (targets_B + 1) % num_classes)
    return torch.stack((targets_B, rank_B, predicted_B), dim=1).double()


def summarise(measures_NM: Tensor) -> dict[str, float]:
    """Top-1 and top-5 accuracy, and macro-F1 over the classes that have examples.

    Macro-F1 leaves out classes without examples, also those that were predicted: its denominator is then a property of
    the split, the same at each epoch and for each model. A stray prediction still counts, as a miss of the true class.
    """
    from sklearn.metrics import f1_score

    targets_N, predictions_N = targets_and_predictions(measures_NM)
    rank_N = measures_NM[:, 1]
    present_classes = np.unique(targets_N)
    macro_f1 = f1_score(targets_N, predictions_N, labels=present_classes, average="macro", zero_division=0.0)
    return {
        "top1": (rank_N < 1).double().mean().item(),
        "top5": (rank_N < _TOP).double().mean().item(),
        "macro_f1": float(macro_f1),
    }


def class_scores(measures_NM: Tensor, num_classes: int) -> ClassScores:
    """Precision, recall, F1 and the number of examples of each class."""
    from sklearn.metrics import precision_recall_fscore_support

    targets_N, predictions_N = targets_and_predictions(measures_NM)
    precision, recall, f1, support = precision_recall_fscore_support(
        targets_N, predictions_N, labels=range(num_classes), zero_division=0.0
    )
    return ClassScores(precision, recall, f1, support.astype(np.int64))


def confusion_matrix(measures_NM: Tensor, num_classes: int) -> IntArray:
    """How many examples of each true class (row) were taken for each class (column): int64[S, S]."""
    from sklearn import metrics

    counts_SS: IntArray = metrics.confusion_matrix(*targets_and_predictions(measures_NM), labels=range(num_classes))
    return counts_SS


def targets_and_predictions(measures_NM: Tensor) -> tuple[IntArray, IntArray]:
    """The first and the last column of the measures, as class indices."""
    columns_MN = measures_NM.cpu().numpy().astype(np.int64).T
    return columns_MN[0], columns_MN[2]


def most_frequent_confusions(counts_SS: IntArray, limit: int) -> list[Confusion]:
    """The off-diagonal cells with the highest counts; of equal counts, first those of classes with fewer examples."""
    support_S = counts_SS.sum(1)
    true, predicted = np.nonzero(counts_SS * ~np.eye(len(counts_SS), dtype=bool))
    order = np.lexsort((predicted, true, support_S[true], -counts_SS[true, predicted]))[:limit]
    cells = zip(true[order].tolist(), predicted[order].tolist(), strict=True)
    return [Confusion(row, column, int(counts_SS[row, column]), int(support_S[row])) for row, column in cells]
