"""From samples to the lines of the table: medians, and ratios within each round."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

OWN, COMPILED = "ds_trainer", "ds_trainer_compiled"

Samples = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Line:
    """One comparison.

    Args:
        row: of issue 5's table, with what distinguishes this case of it.
        what: is measured, with its unit.
        own: of ds_trainer, a median over rounds.
        theirs: of the peer; None: it could not run, or there is none.
        ratio: how many times better ds_trainer is, the median over rounds of the ratio within a round.
        lowest, highest: ratio of a round.
        is_met: the goal; None where there is none.
    """

    row: str
    what: str
    own: float
    peer: str = ""
    theirs: float | None = None
    ratio: float | None = None
    lowest: float | None = None
    highest: float | None = None
    goal: str = ""
    is_met: bool | None = None


@dataclass(frozen=True)
class Measure:
    """What of a sample is compared.

    Args:
        key: in a sample.
        what: it is, with its unit.
        is_cost: less is better.
        least_ratio: by peer, the goal.
    """

    key: str
    what: str
    is_cost: bool = True
    least_ratio: Mapping[str, float] | None = None


def compare(row: str, samples: Samples, measure: Measure) -> list[Line]:
    """A line for each peer."""
    own_by_round = [sample[measure.key] for sample in samples[OWN]]
    if not own_by_round:
        return []
    own = statistics.median(own_by_round)
    lines = [Line(row, measure.what, own)] if len(samples) == 1 else []
    for peer in samples:
        if peer != OWN:
            theirs_by_round = [sample[measure.key] for sample in samples[peer]]
            lines.append(_line(row, measure, peer, own_by_round, theirs_by_round))
    return lines


def _line(row: str, measure: Measure, peer: str, own: Sequence[float], theirs: Sequence[float]) -> Line:
    goal = (measure.least_ratio or {}).get(peer)
    text = "" if goal is None else f">= {goal:.3g} x"
    if not theirs:
        return Line(row, measure.what, statistics.median(own), peer, goal=text)
    pairs = list(zip(own, theirs, strict=False))
    ratios = [other / mine if measure.is_cost else mine / other for mine, other in pairs]
    ratio = statistics.median(ratios)
    is_met = None if goal is None else ratio >= goal
    return Line(
        row,
        measure.what,
        statistics.median(own),
        peer,
        statistics.median(theirs),
        ratio,
        min(ratios),
        max(ratios),
        text,
        is_met,
    )


def at_most(line: Line, limit: float, goal: str) -> Line:
    """`line` with the goal that ds_trainer's own figure is at most `limit`."""
    return replace(line, goal=goal, is_met=line.own <= limit)
