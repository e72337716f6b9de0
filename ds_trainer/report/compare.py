"""The command line of launch/compare.py: runs side by side, as text and as a page."""

import argparse
import itertools
import math
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ds_trainer.command import command
from ds_trainer.errors import EXIT_USER_ERROR
from ds_trainer.plots.style import new_panel, place_legend, style_axes
from ds_trainer.progress import complain, log
from ds_trainer.report.figures import svg_of
from ds_trainer.report.html import shown, write_html
from ds_trainer.report.runs import CURVES, PastRun, differing, find_runs, summaries

_MOST_COLUMNS = 6
"""Runs that are columns; more are rows, the best first."""

_CHOOSING_CLIPS = ("signers", "selected_signs_from", "selected_signs_to", "split", "val_by", "val_fraction")
"""Settings that say which clips validate. Another seed draws others, but of the same people and signs."""

_LONGEST_VALUE = 24
_COLOURS = colormaps["tab10"].resampled(10)
_LINES, _MARKERS = ("-", "--", ":", "-."), "os^DvPX"
"""Of each ten runs, which share their colours with ten others."""

_MARKERS_A_LINE = 10


@dataclass(frozen=True)
class Table:
    """A table of runs: their letters are the columns, or the names of its rows where there are many."""

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Any]]]

    @classmethod
    def of(cls, letters: Sequence[str], values: Mapping[str, Sequence[Any]]) -> "Table":
        """`values` has a value of each run by name."""
        if len(letters) <= _MOST_COLUMNS:
            return cls(letters, list(values.items()))
        return cls(list(values), list(zip(letters, zip(*values.values(), strict=True), strict=False)))


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Compare; return the exit status: 0, or 2 if something could not be read; what could is shown all the same."""
    parser = argparse.ArgumentParser(
        prog="launch/compare.py",
        description="Show what differs between runs and what they reached.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run directories, or folders of them, such as a sweep's")
    parser.add_argument("--page", type=Path, help="also write a page with the curves together to this file")
    own = parser.parse_args(argv)
    runs, problems = find_runs(own.runs)
    if len(runs) > _MOST_COLUMNS:
        runs.sort(key=lambda run: run.val_loss)
    for line in told(runs):
        log.info(line)
    if own.page is not None:
        write_comparison(own.page, runs)
        log.info(f"page {own.page}")
    complain(problems)
    return EXIT_USER_ERROR if problems else 0


def told(runs: Sequence[PastRun]) -> Iterator[str]:
    """The comparison as lines of text: runs are called A, B, C, ..."""
    letters = letters_of(len(runs))
    for letter, run in zip(letters, runs, strict=True):
        yield f"{letter:{len(letters[-1])}}  {run.path}"
    for title, values in (("settings that differ", differing(runs)), ("reached", summaries(runs))):
        yield ""
        if values:
            yield title
            yield from _aligned(Table.of(letters, values))
        else:
            yield f"{title}: none"
    yield from ("", best_of(runs))


def best_of(runs: Sequence[PastRun]) -> str:
    """Which run is the best, in words; many are in this order."""
    best = min(range(len(runs)), key=lambda place: runs[place].val_loss)
    if math.isinf(runs[best].val_loss):
        return "no run has a best checkpoint yet"
    order = "lowest validation loss first" if len(runs) > _MOST_COLUMNS else "lowest validation loss"
    doubts = "; ".join(_doubts(differing(runs)))
    return f"{order}: {letters_of(len(runs))[best]}, {shown(runs[best].val_loss)}" + (f" ({doubts})" if doubts else "")


def _doubts(names: Iterable[str]) -> Iterator[str]:
    """Why validation losses of runs that differ in these settings may say nothing of which is better."""
    differ = set(names)
    if of_other_clips := [name for name in _CHOOSING_CLIPS if name in differ]:
        yield f"of other clips: {', '.join(of_other_clips)} differ" + ("s" if len(of_other_clips) == 1 else "")
    if "label_smoothing" in differ:
        yield "not comparable: label_smoothing, a part of the loss, differs"


def _aligned(table: Table) -> Iterator[str]:
    """Names of columns take a line for each word, to be no wider than what stands below them."""
    words = [re.split("[ .]", name) for name in ("", *table.columns)]
    height = max(map(len, words))
    head = zip(*([""] * (height - len(own)) + own for own in words), strict=True)
    rows = [*head, *([name, *map(_shortened, values)] for name, values in table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = (f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))
        yield "  ".join((f"{first:{widths[0]}}", *cells))


def _shortened(value: Any) -> str:
    text = shown(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def letters_of(number: int) -> list[str]:
    """A, B, ..., Z, AA, AB, ..., ZZ, AAA, ..."""
    words = (word for length in itertools.count(1) for word in itertools.product(string.ascii_uppercase, repeat=length))
    return ["".join(word) for word in itertools.islice(words, number)]


def write_comparison(path: Path, runs: Sequence[PastRun]) -> None:
    """Write the comparison as a page that opens anywhere.

    Raises:
        WriteError: it cannot be written there.
    """
    letters = letters_of(len(runs))
    write_html(
        path,
        "compare.html",
        runs=[(letter, run.path.name) for letter, run in zip(letters, runs, strict=True)],
        letters=letters,
        best=best_of(runs),
        tables={
            "Settings that differ": Table.of(letters, differing(runs)),
            "Reached": Table.of(letters, summaries(runs)),
        },
        curves=[svg_of(figure, title) for title, figure in comparison_figures(letters, runs)],
    )


def comparison_figures(letters: Sequence[str], runs: Sequence[PastRun]) -> Iterator[tuple[str, Figure]]:
    """A figure for each curve that any run has, with a line a run that its legend names."""
    for name, title in CURVES.items():
        figure, axes = new_panel(num_named=len(runs))
        style_axes(axes, title, grid="y")
        for number, (letter, run) in enumerate(zip(letters, runs, strict=True)):
            epochs, values = run.curves[name]
            if np.isfinite(values).any():
                group = number // 10
                axes.plot(
                    epochs, values, color=_COLOURS(number % 10), label=letter, linewidth=1.4,
                    linestyle=_LINES[group % len(_LINES)], marker=_MARKERS[group % len(_MARKERS)], markersize=4,
                    markevery=max(len(epochs) // _MARKERS_A_LINE, 1),
                )  # fmt: skip
        if axes.lines:
            axes.set(xlabel="epoch", xlim=(0, None))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=(1, 2, 5, 10)))
            place_legend(axes)
            yield title, figure
