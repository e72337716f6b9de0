"""What the soak found, as plain text."""

from collections.abc import Sequence
from dataclasses import dataclass, field

_HEADINGS = ("scenario", "what was done", "times", "inside writing", "steps repeated", "worst", "verdict", "seconds")
_NUMERIC = (2, 3, 4, 5, 7)


@dataclass
class Row:
    """What one scenario did and found.

    Args:
        times: how often a job was ended, or something was done to it.
        num_inside: of these, how often something was being written that was left half done; None where that does not
            arise.
        repeated: the steps that were taken again, for each continuation.
        verdict: in a word or two.
        notes: shown below the table.
    """

    scenario: str
    what: str
    times: int = 0
    num_inside: int | None = None
    repeated: list[int] = field(default_factory=list)
    verdict: str = "not run"
    is_bad: bool = True
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def table(rows: Sequence[Row]) -> str:
    """One line a scenario, aligned, and the notes below."""
    cells = [_HEADINGS, *map(_cells, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADINGS))]
    lines = [
        "  ".join(
            cell.rjust(width) if column in _NUMERIC else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    notes = [f"{row.scenario}: {note}" for row in rows for note in row.notes]
    return "\n".join(lines + (["", *notes] if notes else []))


def _cells(row: Row) -> tuple[str, ...]:
    inside = "-" if row.num_inside is None else str(row.num_inside)
    repeated, worst = (str(sum(row.repeated)), str(max(row.repeated))) if row.repeated else ("-", "-")
    verdict = f"BAD: {row.verdict}" if row.is_bad else row.verdict
    return row.scenario, row.what, str(row.times), inside, repeated, worst, verdict, f"{row.seconds:.0f}"
