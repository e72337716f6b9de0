"""What a classifier confuses: heat map, scores of each class, most frequent confusions; at 26 and at 502 classes.

Up to `MOST_NAMED` classes all are named. Beyond, a name a class would be a grey smear: the plot then shows the shape of
the whole and names the worst.
"""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch.nn import functional

from ds_trainer.classification import ClassScores, Confusion, IntArray, most_frequent_confusions
from ds_trainer.plots.style import (
    BLUE,
    GREY,
    INK,
    PALE,
    SMALL_PT,
    VERMILLION,
    draw_note,
    new_figure,
    place_legend,
    shown_confusion,
    shown_name,
    spread,
    style_axes,
)

MOST_NAMED = 60
NUM_WORST = 25
ROW_IN = 0.24
CHARACTER_IN = 0.07


def confusion_figure(counts_SS: IntArray, class_names: Sequence[str], title: str) -> Figure:
    """A heat map with true classes as rows: right answers in blue, wrong ones in orange, as a fraction of the row."""
    num_classes = len(class_names)
    names = [shown_name(name) for name in class_names]
    is_named = num_classes <= MOST_NAMED
    if is_named:
        side_in = max(5.0, ROW_IN * num_classes) + 1.2 + CHARACTER_IN * max(map(len, names))
        figure = new_figure(title, side_in, side_in)
    else:
        figure = new_figure(title, 13.5, 11.5)
    axes = figure.subplots()
    style_axes(axes, f"{counts_SS.sum()} examples of {num_classes} classes; colour: fraction of the true class")
    _draw_cells(axes, counts_SS)
    axes.spines[:].set(visible=True, color=PALE)
    if is_named:
        axes.set_xticks(range(num_classes), names, rotation=90, parse_math=False)
        axes.set_yticks(range(num_classes), names, parse_math=False)
        axes.set(xlabel="predicted", ylabel="true")
        _write_counts(axes, counts_SS)
    else:
        axes.set(xticks=[], yticks=[], xlabel="predicted, in the order of the classes", ylabel="true, in this order")
        _name_worst_cells(axes, most_frequent_confusions(counts_SS, NUM_WORST), class_names)
    return figure


def class_scores_figure(scores: ClassScores, class_names: Sequence[str], title: str) -> Figure:
    """Precision, recall and F1 of each class, the worst on top; of many classes one curve beside the worst."""
    present = np.flatnonzero(scores.support)
    worst_first = present[np.lexsort((present, -scores.support[present], scores.f1[present]))]
    num_absent = len(class_names) - len(present)
    note = f"; {num_absent} without examples left out" if num_absent else ""
    if len(present) <= MOST_NAMED:
        figure = new_figure(title, 8.5, ROW_IN * len(present) + 2.0)
        _draw_scores(figure.subplots(), scores, worst_first, class_names, f"F1 of {len(present)} classes{note}")
        return figure
    figure = new_figure(title, 14, ROW_IN * NUM_WORST + 2.0)
    num_zero = int((scores.f1[present] == 0).sum())
    curve_axes, worst_axes = figure.subplots(1, 2, width_ratios=(1, 1.1))
    _draw_sorted_f1(curve_axes, scores.f1[worst_first], f"F1 of {len(present)} classes, {num_zero} of them 0{note}")
    _draw_scores(worst_axes, scores, worst_first[:NUM_WORST], class_names, f"The {NUM_WORST} worst")
    return figure


def confusions_figure(counts_SS: IntArray, class_names: Sequence[str], title: str) -> Figure:
    """The most frequent confusions as bars, each with the number of examples that it is a part of."""
    confusions = most_frequent_confusions(counts_SS, NUM_WORST)
    figure = new_figure(title, 8.5, ROW_IN * max(len(confusions), 6) + 1.6)
    axes = figure.subplots()
    num_wrong = int(counts_SS.sum() - counts_SS.trace())
    style_axes(axes, f"Most frequent confusions, true → predicted; {num_wrong} of {counts_SS.sum()} answers are wrong")
    if not confusions:
        draw_note(axes, "no confusions")
        return figure
    rows = range(len(confusions))
    axes.barh(rows, [confusion.count for confusion in confusions], height=0.62, color=BLUE)
    labels = [shown_confusion(class_names[pair.true], class_names[pair.predicted]) for pair in confusions]
    axes.set_yticks(rows, labels, parse_math=False)
    axes.set(xticks=[], ylim=(len(confusions) - 0.4, -0.6), xlim=(0, confusions[0].count * 1.3))
    for row, confusion in zip(rows, confusions, strict=True):
        text = f" {confusion.count} of {confusion.support}"
        axes.text(confusion.count, row, text, va="center_baseline", fontsize=SMALL_PT, color=INK)
    return figure


def _draw_cells(axes: Axes, counts_SS: IntArray) -> None:
    """One colour for right answers, one for wrong ones; among many classes a cell covers its neighbours, to be seen."""
    norm = PowerNorm(0.5, vmin=0, vmax=1)  # one wrong answer of 16 must stand out from white
    fraction_SS = counts_SS / np.maximum(counts_SS.sum(1, keepdims=True), 1)
    is_right_SS = np.eye(len(counts_SS), dtype=bool)
    cell_width = 1 if len(counts_SS) <= 250 else 3
    legend = []
    for name, shown_SS, colors in (("right", is_right_SS, "Blues"), ("confused", ~is_right_SS, "Oranges")):
        cells_1SS = torch.from_numpy(np.where(shown_SS, fraction_SS, 0.0))[None]
        cells_1SS = functional.max_pool2d(cells_1SS, cell_width, stride=1, padding=cell_width // 2)
        axes.imshow(np.ma.masked_equal(cells_1SS[0].numpy(), 0), cmap=colors, norm=norm, interpolation="nearest")
        for fraction in (0.1, 0.5, 1.0):
            label = f"{name} {fraction:g}" if fraction == 0.1 else f"{fraction:g}"
            legend.append(Patch(color=colormaps[colors](norm(fraction)), label=label))
    place_legend(axes, legend)


def _write_counts(axes: Axes, counts_SS: IntArray) -> None:
    support_S = counts_SS.sum(1)
    for row, column in np.argwhere(counts_SS):
        is_dark = counts_SS[row, column] > 0.4 * support_S[row]
        color = "white" if is_dark else INK
        axes.text(column, row, str(counts_SS[row, column]), ha="center", va="center", fontsize=7, color=color)


def _name_worst_cells(axes: Axes, confusions: Sequence[Confusion], class_names: Sequence[str]) -> None:
    """Circle the most frequent confusions and name them in the margin, in the order of their rows."""
    num_classes = len(class_names)
    places = spread([pair.true for pair in confusions], num_classes / 36, num_classes)
    for pair, place in zip(confusions, places, strict=True):
        names = shown_confusion(class_names[pair.true], class_names[pair.predicted])
        axes.annotate(
            f"{names}  {pair.count} of {pair.support}",
            xy=(pair.predicted, pair.true), xytext=(num_classes * 1.03, place),
            va="center", fontsize=SMALL_PT, color=INK, annotation_clip=False, parse_math=False,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "relpos": (0, 0.5), "shrinkB": 4},
        )  # fmt: skip
    columns, rows = [pair.predicted for pair in confusions], [pair.true for pair in confusions]
    axes.plot(columns, rows, "o", markersize=8, markerfacecolor="none", markeredgecolor=VERMILLION, clip_on=False)
    axes.set(xlim=(-0.5, num_classes - 0.5), ylim=(num_classes - 0.5, -0.5))


def _draw_scores(axes: Axes, scores: ClassScores, order: IntArray, class_names: Sequence[str], title: str) -> None:
    """One row a class: a line from precision to recall, F1 on it, and F1 and support in figures."""
    style_axes(axes, title, grid="x")
    rows = np.arange(len(order))
    precision, recall, f1 = scores.precision[order], scores.recall[order], scores.f1[order]
    axes.hlines(rows, precision, recall, color=GREY, linewidth=1.2)
    axes.plot(precision, rows, "|", color=GREY, markersize=9, markeredgewidth=1.6, label="precision", clip_on=False)
    axes.plot(recall, rows, "o", color=GREY, markerfacecolor="white", markersize=5, label="recall", clip_on=False)
    axes.plot(f1, rows, "o", color=BLUE, markersize=6, label="F1", clip_on=False)
    axes.set_yticks(rows, [shown_name(class_names[index]) for index in order], parse_math=False)
    axes.tick_params(axis="y", pad=8)
    axes.set(xlim=(0, 1), ylim=(len(order) - 0.4, -0.6))
    _write_column(axes, 40, "F1", [f"{value:.2f}" for value in f1])
    _write_column(axes, 92, "examples", [str(count) for count in scores.support[order]])
    place_legend(axes)


def _write_column(axes: Axes, offset_pt: float, heading: str, cells: Sequence[str]) -> None:
    """Text to the right of the rows 0, 1, ... of `axes`, ending `offset_pt` from their edge."""
    for row, cell in ((-1, heading), *enumerate(cells)):
        axes.annotate(
            cell,
            xy=(1, row), xycoords=axes.get_yaxis_transform(), xytext=(offset_pt, 0), textcoords="offset points",
            ha="right", va="center_baseline", fontsize=SMALL_PT, color=GREY if row < 0 else INK, annotation_clip=False,
        )  # fmt: skip


def _draw_sorted_f1(axes: Axes, f1_sorted: NDArray[np.float64], title: str) -> None:
    style_axes(axes, title, grid="y")
    ranks = np.arange(len(f1_sorted)) + 1
    axes.fill_between(ranks, f1_sorted, step="mid", color=BLUE, alpha=0.2, linewidth=0)
    axes.step(ranks, f1_sorted, where="mid", color=BLUE, linewidth=1.6)
    mean = f1_sorted.mean()
    axes.axhline(mean, color=VERMILLION, linewidth=1.1, linestyle="--", label=f"macro-F1 {mean:.3f}")
    axes.set(xlim=(1, len(f1_sorted)), ylim=(0, 1.02), xlabel="classes, worst first", ylabel="F1")
    place_legend(axes)
