"""How every plot looks: figures, axes, colours and names that are drawn alike.

Figures are built without pyplot: nothing is registered globally, and what writes PNG files needs no display.
"""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

# Okabe and Ito's palette, told apart with every common colour blindness: https://jfly.uni-koeln.de/color/
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
INK, GREY, PALE = "#222222", "#767676", "#DDDDDD"

SMALL_PT, NORMAL_PT, LARGE_PT = 8, 9.5, 12
DPI = 150
LONGEST_NAME = 28
_MOST_IN_LINE, _LEGEND_LINE_PT = 8, 12

# Unicode's directional isolates and mark: without them the arrow between two Arabic names points the wrong way.
_ISOLATE, _END_OF_ISOLATE, _LEFT_TO_RIGHT = "\u2068", "\u2069", "\u200e"


def new_figure(title: str, width_in: float, height_in: float) -> Figure:
    """An empty figure that keeps its parts apart by itself."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, wspace=0.04, hspace=0.06, compress=True)
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, layout=layout, facecolor="white")
    if not title:
        return figure
    # 8 characters an inch is the width of this font; matplotlib's own wrapping does not know of the layout.
    title = _LEFT_TO_RIGHT + textwrap.fill(title, int(width_in * 8))
    figure.suptitle(title, x=0.01, ha="left", fontsize=LARGE_PT, fontweight="bold", color=INK, parse_math=False)
    return figure


def new_panel(num_named: int = 1) -> tuple[Figure, Axes]:
    """One plot without a title of its own, to be set where a page has room for it; and its axes.

    Args:
        num_named: in its legend, so that the axes keep their size below a long one.
    """
    figure = new_figure("", 5.2, 3.3 + _LEGEND_LINE_PT / 72 * (_legend_lines(num_named) - 1))
    return figure, figure.subplots()


def style_axes(axes: Axes, title: str, grid: str | None = None) -> None:
    """Title, ticks and spines of `axes`.

    Args:
        grid: "x" or "y", the axis whose values are read off.
    """
    axes.set_title(title, loc="left", fontsize=NORMAL_PT, color=INK)
    axes.tick_params(length=0, labelsize=SMALL_PT, labelcolor=INK)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(fontsize=SMALL_PT, color=GREY)
    axes.spines[:].set_visible(False)
    axes.set_axisbelow(True)
    if grid is not None:
        axes.grid(axis="x" if grid == "x" else "y", color=PALE, linewidth=0.7)


def draw_note(axes: Axes, text: str) -> None:
    """Say in the middle of empty `axes` why they are empty."""
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=NORMAL_PT, color=GREY)


def place_legend(axes: Axes, handles: Sequence[Artist] | None = None) -> None:
    """A legend between title and axes, where it cannot hide data: in one line, but for more than fit there.

    Args:
        handles: what to explain, if not all that has a label.
    """
    handles = axes.get_legend_handles_labels()[0] if handles is None else handles
    num_columns = min(len(handles), _MOST_IN_LINE)
    by_columns = [handle for column in range(num_columns) for handle in handles[column::num_columns]]
    axes.legend(
        handles=by_columns, ncols=num_columns,
        loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, borderpad=0.2, frameon=False,
        fontsize=SMALL_PT, labelcolor=INK, handlelength=1.4, columnspacing=1.4, handletextpad=0.5,
    )  # fmt: skip
    pad = 8 + _LEGEND_LINE_PT * _legend_lines(len(handles))
    axes.set_title(axes.get_title(loc="left"), loc="left", fontsize=NORMAL_PT, color=INK, pad=pad)


def _legend_lines(num_named: int) -> int:
    return math.ceil(num_named / _MOST_IN_LINE)


def shown_name(name: str) -> str:
    """`name` on one line of bounded length, kept together where it is written from right to left."""
    name = " ".join(name.split())
    if len(name) > LONGEST_NAME:  # cut in the middle: long names often begin alike
        before = LONGEST_NAME // 2
        name = f"{name[:before]}…{name[before + 1 - LONGEST_NAME :]}"
    return f"{_ISOLATE}{name}{_END_OF_ISOLATE}"


def shown_confusion(true_name: str, predicted_name: str) -> str:
    """`true → predicted`, in this order for names of any script."""
    return f"{_LEFT_TO_RIGHT}{shown_name(true_name)} → {shown_name(predicted_name)}"


def spread(positions: Sequence[float], least_gap: float, end: float) -> list[float]:
    """Places for labels in the order of `positions`: near them, at least `least_gap` apart, between 0 and `end`.

    Raises:
        AssertionError: more labels were asked for than fit.
    """
    wanted = np.asarray(positions, dtype=float)
    ranks = wanted.argsort(kind="stable")
    offsets = np.arange(len(wanted)) * least_gap
    assert not len(wanted) or offsets[-1] <= end, "as many labels as there is room for"
    # In coordinates that have the gaps taken out, labels are apart exactly when their places do not decrease.
    room = end - (offsets[-1] if len(offsets) else 0.0)
    places = np.empty_like(wanted)
    places[ranks] = np.maximum.accumulate(np.clip(wanted[ranks] - offsets, 0, room)) + offsets
    return [float(place) for place in places]
