"""What is drawn and tabulated after training: curves of the run, and what its best model confuses."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from ds_trainer.calibration import Calibration
from ds_trainer.classification import ClassScores, class_scores, confusion_matrix, summarise
from ds_trainer.files import make_folder, write_atomically, write_csv
from ds_trainer.plots.calibration import calibration_figure
from ds_trainer.plots.classes import class_scores_figure, confusion_figure, confusions_figure
from ds_trainer.plots.curves import Record, curves_figure
from ds_trainer.plots.fonts import fonts_for


def visualize_metrics(
    out_dir: Path,
    records: Sequence[Record],
    measures_NM: Tensor,
    class_names: Sequence[str],
    title: str,
    scored: str = "",
    gradient_clipping: float | None = None,
) -> list[Path]:
    """Draw the curves of a run and the confusions of a classifier, write its report; return the files.

    A task that is no classification has `draw_curves`.

    Args:
        out_dir: made if missing; files of an earlier call are replaced.
        records: the lines of metrics.jsonl.
        measures_NM: what `classification_objective` measures, of a whole split.
        title: says on the plots which run they show.
        scored: says which split and which checkpoint the measures are of.
        gradient_clipping: the norm to which gradients were clipped, if they were.

    Raises:
        WriteError: the disk is full, read-only or gone.
    """
    curves_path = draw_curves(out_dir, records, title, gradient_clipping)
    scores_title = f"{title}, {scored}" if scored else title
    counts_SS = confusion_matrix(measures_NM, len(class_names))
    scores = class_scores(measures_NM, len(class_names))
    with fonts_for(class_names):
        figures = {
            "confusion_matrix.png": confusion_figure(counts_SS, class_names, scores_title),
            "class_scores.png": class_scores_figure(scores, class_names, scores_title),
            "confusions.png": confusions_figure(counts_SS, class_names, scores_title),
        }
        for name, figure in figures.items():
            write_atomically(out_dir / name, figure.savefig)
    report_path = out_dir / "classification_report.csv"
    write_report(report_path, scores, class_names, summarise(measures_NM)["top1"])
    return [curves_path, *(out_dir / name for name in figures), report_path]


def draw_curves(out_dir: Path, records: Sequence[Record], title: str, gradient_clipping: float | None = None) -> Path:
    """Draw loss, accuracy, learning rate and gradient norm over the epochs; return the file."""
    make_folder(out_dir)
    path = out_dir / "curves.png"
    write_atomically(path, curves_figure(records, title, gradient_clipping).savefig)
    return path


def draw_calibration(out_dir: Path, calibration: Calibration, title: str) -> None:
    """Draw how often answers are right, by how sure the model is."""
    write_atomically(out_dir / "calibration.png", calibration_figure(calibration, title).savefig)


def write_report(path: Path, scores: ClassScores, class_names: Sequence[str], accuracy: float) -> None:
    """A table in the order of the classes, then accuracy and the averages over the classes that have examples.

    Written here because scikit-learn's own report keys its rows by name and so loses classes that share one.
    """
    columns = np.stack((scores.precision, scores.recall, scores.f1))
    total = int(scores.support.sum())
    macro = columns[:, scores.support > 0].mean(1)
    weighted = columns @ scores.support / total
    of_classes = zip(class_names, columns.T, scores.support, strict=True)
    rows = [
        ("class", "precision", "recall", "f1-score", "support"),
        *((name, *_rounded(values), support) for name, values, support in of_classes),
        ("accuracy", "", "", *_rounded([accuracy]), total),
        ("macro avg", *_rounded(macro), total),
        ("weighted avg", *_rounded(weighted), total),
    ]
    write_csv(path, rows)


def _rounded(values: Sequence[float] | np.ndarray) -> list[str]:
    return [f"{value:.6f}" for value in values]
