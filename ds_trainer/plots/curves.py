"""Curves over the epochs of a run: loss, accuracy, learning rate and gradient norm."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from ds_trainer.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILLION,
    draw_note,
    new_figure,
    new_panel,
    place_legend,
    style_axes,
)

Record = Mapping[str, Any]
Series = tuple[NDArray[np.float64], NDArray[np.float64]]

_LARGEST = float(np.finfo(np.float32).max)
"""Training has none beyond, and no axis room for them: a record may be made up."""

_ACCURACIES = {"top1": ("top-1", BLUE), "top5": ("top-5", GREEN), "macro_f1": ("macro-F1", ORANGE)}


class History:
    """The records of a run as curves over epochs, numbered from 1 as in the log; a step lies within its epoch.

    A run that was resumed may have recorded an epoch or step twice: the later record holds.
    """

    def __init__(self, records: Sequence[Record]):
        epochs = {record["epoch"]: record for record in records if record["kind"] == "epoch"}
        steps = {record["step"]: record for record in records if record["kind"] == "step"}
        self._epochs = [epochs[epoch] for epoch in sorted(epochs)]
        self._steps = [steps[step] for step in sorted(steps)] if epochs else []
        self.num_epochs = self._epochs[-1]["epoch"] + 1 if epochs else 0

    def of_epochs(self, name: str) -> Series:
        """(epoch, value of `name`), NaN where it was not recorded or is not finite in float32."""
        return np.array([record["epoch"] + 1.0 for record in self._epochs]), _values(self._epochs, name)

    def of_steps(self, name: str) -> Series:
        """(fraction of an epoch, value of `name`), NaN where it was not recorded or is not finite."""
        epoch_ends = [0.0, *(record["epoch"] + 1.0 for record in self._epochs)]
        steps_at_ends = [0.0, *(float(record["step"]) for record in self._epochs)]
        steps = np.array([record["step"] for record in self._steps], dtype=np.float64)
        return np.interp(steps, steps_at_ends, epoch_ends), _values(self._steps, name)

    def best_epoch(self) -> int | None:
        """The epoch of the best checkpoint, counted from 1; None where no record says which it was."""
        return max((record["epoch"] + 1 for record in self._epochs if record.get("is_best")), default=None)


def curves_figure(records: Sequence[Record], title: str, gradient_clipping: float | None = None) -> Figure:
    """Loss, learning rate and gradient norm over the epochs, and accuracy where it was recorded.

    Args:
        records: the lines of metrics.jsonl.
        gradient_clipping: the norm to which gradients were clipped, if they were.
    """
    panels = _panels(records, gradient_clipping)
    num_rows = len(panels) // 2
    figure = new_figure(title, 12 if num_rows == 2 else 16, 3.6 * num_rows)
    for draw, axes in zip(panels, figure.subplots(num_rows, len(panels) // num_rows, squeeze=False).flat, strict=True):
        draw(axes)
    return figure


def curve_figures(records: Sequence[Record], gradient_clipping: float | None = None) -> list[Figure]:
    """The panels of `curves_figure`, a figure each, to be set where a page has room for them."""
    figures = []
    for draw in _panels(records, gradient_clipping):
        figure, axes = new_panel()
        draw(axes)
        figures.append(figure)
    return figures


def _panels(records: Sequence[Record], gradient_clipping: float | None) -> list[Callable[[Axes], None]]:
    history = History(records)
    panels: list[Callable[[Axes], None]] = [
        lambda axes: _draw_loss(axes, history),
        lambda axes: _draw_learning_rate(axes, history),
        lambda axes: _draw_gradient_norm(axes, history, gradient_clipping),
    ]
    if any(_has_values(history.of_epochs(name)[1]) for name in _ACCURACIES):
        panels.insert(1, lambda axes: _draw_accuracy(axes, history))
    return panels


def _draw_loss(axes: Axes, history: History) -> None:
    style_axes(axes, "Loss", grid="y")
    _draw_steps(axes, history.of_steps("loss"))
    _draw_epochs(axes, history.of_epochs("train_loss"), "training", BLUE)
    epochs, losses = history.of_epochs("val_loss")
    _draw_epochs(axes, (epochs, losses), "validation", VERMILLION)
    best = history.best_epoch()
    at_best = losses[epochs == best]
    if best is not None and _has_values(at_best):
        label = f"best: {at_best[0]:.4g}, epoch {best}"
        axes.plot(best, at_best[0], "*", markersize=13, color=VERMILLION, markeredgecolor="white", label=label)
    _finish(axes, history)


def _draw_accuracy(axes: Axes, history: History) -> None:
    best = history.best_epoch()
    style_axes(axes, "Validation accuracy" + (f"; numbers of epoch {best}" if best else ""), grid="y")
    for name, (label, color) in _ACCURACIES.items():
        epochs, values = history.of_epochs(name)
        at_best = values[epochs == best]
        _draw_epochs(axes, (epochs, values), f"{label} {at_best[0]:.3f}" if _has_values(at_best) else label, color)
    if best is not None:
        axes.axvline(best, color=GREY, linewidth=0.9, linestyle=":")
    axes.set_ylim(0, 1.02)
    _finish(axes, history)


def _draw_learning_rate(axes: Axes, history: History) -> None:
    style_axes(axes, "Learning rate", grid="y")
    rates = history.of_epochs("learning_rate")  # of each epoch's last step
    known = rates[1][np.isfinite(rates[1])]
    label = f"from {known[0]:.3g} to {known[-1]:.3g}" if len(known) else ""
    axes.plot(*rates, color=BLUE, linewidth=1.8, markersize=3, drawstyle="steps-mid", marker="o", label=label)
    _scale_log(axes)
    _finish(axes, history)


def _draw_gradient_norm(axes: Axes, history: History, clipping: float | None) -> None:
    style_axes(axes, "Gradient norm, before clipping", grid="y")
    steps, norms = history.of_steps("grad_norm")
    _draw_steps(axes, (steps, norms))
    _draw_epochs(axes, history.of_epochs("grad_norm"), "mean of the epoch", BLUE)
    if clipping is not None and axes.lines:
        label = f"clipped to {clipping:g}"
        if _has_values(norms):
            known = norms[np.isfinite(norms)]
            label += f": {(known > clipping).mean():.0%} of {len(known)} steps"  # those that were recorded
        axes.axhline(clipping, color=VERMILLION, linewidth=1.1, linestyle="--", label=label)
    _scale_log(axes)
    _finish(axes, history)


def _draw_steps(axes: Axes, series: Series) -> None:
    if _has_values(series[1]):
        axes.plot(*series, color=GREY, alpha=0.45, linewidth=0.8, label="step")


def _draw_epochs(axes: Axes, series: Series, label: str, color: str) -> None:
    if _has_values(series[1]):
        # Markers keep a value between two missing ones, and that of a single epoch, in sight.
        axes.plot(*series, color=color, linewidth=1.8, marker="o", markersize=3, label=label)


def _scale_log(axes: Axes) -> None:
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines] or [np.empty(0)])
    values = values[values > 0]  # also drops NaN
    if len(values):
        axes.set_yscale("log")
        # A factor of 1.6 on either side leaves room for at least one of the ticks 1, 2, 5.
        axes.set_ylim(values.min() / 1.6, values.max() * 1.6)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _finish(axes: Axes, history: History) -> None:
    if not any(_has_values(np.asarray(line.get_ydata(), dtype=float)) for line in axes.lines):
        for line in list(axes.lines):
            line.remove()
        draw_note(axes, "not recorded")
        return
    axes.set(xlim=(0, history.num_epochs * 1.02), xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=(1, 2, 5, 10)))
    if axes.get_legend_handles_labels()[1]:
        place_legend(axes)


def _values(records: Sequence[Record], name: str) -> NDArray[np.float64]:
    raw = (record.get(name) for record in records)
    values = np.array([np.nan if value is None else value for value in raw], dtype=np.float64)
    values[~(np.abs(values) <= _LARGEST)] = np.nan
    return values


def _has_values(values: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(values).any())
