"""The command line of launch/compare.py: runs side by side, as text and as a page."""

import argparse
import itertools
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from ds_trainer.command import command
from ds_trainer.plots.style import new_panel, place_legend, style_axes
from ds_trainer.progress import log
from ds_trainer.report.figures import svg_of
from ds_trainer.report.html import shown, write_html
from ds_trainer.report.runs import PastRun, differing, find_runs, summaries

_CURVES = {
    "val_loss": "Validation loss",
    "train_loss": "Training loss",
    "top1": "Validation top-1",
    "macro_f1": "Validation macro-F1",
    "learning_rate": "Learning rate",
}
_LONGEST_VALUE = 24


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Compare; return the exit status: 0, or 2 for what the user can mend."""
    parser = argparse.ArgumentParser(
        prog="launch/compare.py",
        description="Show what differs between runs and what they reached.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run directories, or folders of them, such as a sweep's")
    parser.add_argument("--page", type=Path, help="also write a page with the curves together to this file")
    own = parser.parse_args(argv)
    runs = find_runs(own.runs)
    for line in told(runs):
        log.info(line)
    if own.page is not None:
        write_comparison(own.page, runs)
        log.info(f"page {own.page}")
    return 0


def told(runs: Sequence[PastRun]) -> Iterator[str]:
    """The comparison as lines of text: runs are columns, called A, B, C, ..."""
    letters = letters_of(len(runs))
    for letter, run in zip(letters, runs, strict=True):
        yield f"{letter}  {run.path}"
    for title, table in (("settings that differ", differing(runs)), ("reached", summaries(runs))):
        yield ""
        if table:
            yield from _columns(title, letters, table)
        else:
            yield f"{title}: none"


def _columns(title: str, letters: Sequence[str], table: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    rows = [[title, *letters], *([name, *map(_shortened, values)] for name, values in table.items())]
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
        tables={"Settings that differ": differing(runs), "Reached": summaries(runs)},
        curves=[svg_of(figure, title) for title, figure in _figures(letters, runs)],
    )


def _figures(letters: Sequence[str], runs: Sequence[PastRun]) -> Iterator[tuple[str, Figure]]:
    """A figure for each curve that any run has, with a line a run."""
    colours = colormaps["tab10" if len(runs) <= 10 else "turbo"]
    for name, title in _CURVES.items():
        figure, axes = new_panel()
        style_axes(axes, title, grid="y")
        for number, (letter, run) in enumerate(zip(letters, runs, strict=True)):
            epochs, values = run.history.of_epochs(name)
            if np.isfinite(values).any():
                colour = colours(number if len(runs) <= 10 else number / (len(runs) - 1))
                axes.plot(epochs, values, color=colour, label=letter, linewidth=1.4)
        if axes.lines:
            axes.set(xlabel="epoch", xlim=(0, None))
            if len(runs) <= 10:
                place_legend(axes)
            yield title, figure
