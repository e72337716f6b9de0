"""The table, the file of results, and the plot."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.bench import Outcome
from benchmarks.figures import OWN, Line

_HEADINGS = ("row", "what", OWN, "peer", "peer's", "ratio", "in rounds", "goal", "met")


def table(lines: Sequence[Line]) -> str:
    """The lines in columns; a ratio says how many times better ds_trainer is."""
    cells = [_HEADINGS, *map(_cells, lines)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADINGS))]
    rule = "  ".join("-" * width for width in widths)
    rows = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([rows[0], rule, *rows[1:]])


def _cells(line: Line) -> tuple[str, ...]:
    theirs = "-" if line.theirs is None else number(line.theirs)
    ratio = "-" if line.ratio is None else f"{line.ratio:.2f} x"
    spread = "-" if line.lowest is None or line.highest is None else f"{line.lowest:.2f}-{line.highest:.2f}"
    met = {True: "yes", False: "no", None: ""}[line.is_met]
    return line.row, line.what, number(line.own), line.peer or "-", theirs, ratio, spread, line.goal, met


def number(value: float) -> str:
    """Three digits, or all of a count."""
    if value == 0 or abs(value) >= 1000 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def write_results(path: Path, machine: dict[str, Any], outcomes: dict[str, Outcome], about: dict[str, Any]) -> None:
    """Everything, raw samples included, as JSON."""
    rows = {
        name: {"lines": [asdict(line) for line in outcome.lines], "notes": outcome.notes, "samples": outcome.samples}
        for name, outcome in outcomes.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**about, "machine": machine, "rows": rows}, indent=1) + "\n")


def draw(path: Path, lines: Sequence[Line], title: str) -> None:
    """How many times better ds_trainer is than each peer, and the goals."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    drawn = [line for line in lines if line.ratio is not None]
    if not drawn:
        return
    figure, axes = plt.subplots(figsize=(10, 1.2 + 0.25 * len(drawn)), layout="constrained")
    places = range(len(drawn))
    colours = {True: "tab:green", False: "tab:red", None: "tab:grey"}
    lengths = [line.ratio - 1 for line in drawn if line.ratio is not None]
    axes.barh(places, lengths, left=1, color=[colours[line.is_met] for line in drawn])
    for place, line in zip(places, drawn, strict=True):
        if line.lowest is not None:
            axes.plot([line.lowest, line.highest], [place, place], color="black", linewidth=1)
        if line.goal.startswith(">="):
            axes.plot(float(line.goal.split()[1]), place, marker="|", color="black", markersize=12)
    axes.set_yticks(places, [f"{line.row} · {line.what} · {line.peer}" for line in drawn], fontsize=8)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g} x")
    axes.axvline(1, color="black", linewidth=0.5)
    axes.set_ylim(len(drawn) - 0.5, -0.5)
    axes.set_xlabel(
        f"times better than the peer; line: range of the rounds; |: goal; green: met, red: not met\n{title}", fontsize=8
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)
