"""Unit: the curves of a run, read back from their figure."""

import math
from pathlib import Path

import numpy as np
import pytest
from drawn import overlapping, records_of, shown_texts
from matplotlib.figure import Figure

from ds_trainer.diagnostics import draw_curves
from ds_trainer.plots.curves import curves_figure


def test_best_epoch_is_marked_and_counted_from_one() -> None:
    figure = curves_figure(records_of(6), "")
    assert _legend(figure, 0) == ["step", "training", "validation", "best: 1, epoch 3"]
    star = next(line for line in figure.axes[0].lines if line.get_label() == "best: 1, epoch 3")
    assert (star.get_xdata(), star.get_ydata()) == ([3], [1.0])
    assert "top-1 0.120" in _legend(figure, 1)


def test_steps_lie_within_their_epochs() -> None:
    figure = curves_figure(records_of(3), "")
    steps = next(line for line in figure.axes[0].lines if line.get_label() == "step")
    assert np.asarray(steps.get_xdata()).tolist() == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]


def test_share_of_clipped_steps_is_said() -> None:
    assert "clipped to 1: 50% of 6 steps" in _legend(curves_figure(records_of(3), "", gradient_clipping=1.0), 3)


def test_a_resumed_run_shows_the_later_record_of_an_epoch() -> None:
    figure = curves_figure([*records_of(2, val_loss=9.0), *records_of(2, val_loss=5.0)], "")
    validation = next(line for line in figure.axes[0].lines if line.get_label() == "validation")
    assert np.asarray(validation.get_ydata()).tolist() == [5.0, 5.0]


@pytest.mark.parametrize(("num_epochs", "lost"), [(0, None), (1, None), (1, math.nan), (2, math.inf), (50, math.nan)])
def test_curves_hold_with_few_epochs_and_values_that_are_missing(num_epochs: int, lost: float | None) -> None:
    records = records_of(num_epochs, grad_norm=lost)
    for record in records[::2]:
        record["loss" if record["kind"] == "step" else "val_loss"] = lost
    for record in records:
        record["grad_norm"] = lost
    figure = curves_figure(records, "run", gradient_clipping=1.0)
    texts = [text.get_text() for text in shown_texts(figure)]
    assert texts.count("not recorded") == (1 if num_epochs else 3)
    assert overlapping(figure) == []


def test_a_task_without_accuracy_has_curves_alone(tmp_path: Path) -> None:
    records = [
        {key: value for key, value in record.items() if key not in ("top1", "top5", "macro_f1")}
        for record in records_of(3)
    ]
    assert len(curves_figure(records, "").axes) == 3
    assert draw_curves(tmp_path, records, "run") == tmp_path / "curves.png"
    assert list(tmp_path.iterdir()) == [tmp_path / "curves.png"]


def _legend(figure: Figure, panel: int) -> list[str]:
    legend = figure.axes[panel].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]
