"""What the folds reached: a row a signer, a column a seed, and what both say together.

Signers are the sample: the mean is over them, each counted alike, and the spread that matters to a user is between
them. The spread over seeds tells how much of a difference is chance.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ds_trainer.cross_validation.scored import Scored
from ds_trainer.files import write_atomically, write_csv, write_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scores = Mapping[int, Mapping[str, float]]
"""Seed -> signer -> score."""


@dataclass(frozen=True)
class Results:
    """What the folds of a sweep reached: the scores by `metric`, of which clips, and what is to be said besides."""

    metric: str
    scores: Scores
    scored: Scored
    note: str = ""


@dataclass(frozen=True)
class Summary:
    """The scores of a sweep together.

    Args:
        mean_of_seed: over the signers.
        mean: over signers and seeds.
        deviation_of_seeds: of the means, 0 for one seed.
        mean_of_signer: over the seeds.
        deviation_of_signer: over the seeds, 0 for one.
    """

    mean_of_seed: dict[int, float]
    mean: float
    deviation_of_seeds: float
    mean_of_signer: dict[str, float]
    deviation_of_signer: dict[str, float]


def summarise(scores: Scores) -> Summary:
    """Means and standard deviations (of a sample) of complete scores."""
    signers = list(next(iter(scores.values())))
    of_signer = {signer: [by_signer[signer] for by_signer in scores.values()] for signer in signers}
    mean_of_seed = {seed: statistics.fmean(by_signer.values()) for seed, by_signer in scores.items()}
    return Summary(
        mean_of_seed=mean_of_seed,
        mean=statistics.fmean(mean_of_seed.values()),
        deviation_of_seeds=_deviation(list(mean_of_seed.values())),
        mean_of_signer={signer: statistics.fmean(values) for signer, values in of_signer.items()},
        deviation_of_signer={signer: _deviation(values) for signer, values in of_signer.items()},
    )


def table_lines(results: Results) -> list[str]:
    """The table as text."""
    scores, num_clips, summary = results.scores, results.scored.num_clips, summarise(results.scores)
    width = max(len(name) for name in (*summary.mean_of_signer, "held out", "mean"))
    seeds = "".join(f"  {f'seed {seed}':>7}" for seed in scores)
    over_seeds = " ± over seeds" if len(scores) > 1 else ""
    lines = [
        f"{results.metric} on the signers held out, who took no part in the training or in its choice of epoch"
        + results.note,
        "",
        f"{'held out':{width}}    clips{seeds}     mean{over_seeds}",
    ]
    for signer, mean in summary.mean_of_signer.items():
        values = "".join(f"  {by_signer[signer]:7.3f}" for by_signer in scores.values())
        spread = f" ± {summary.deviation_of_signer[signer]:.3f}" if len(scores) > 1 else ""
        lines.append(f"{signer:{width}}  {num_clips[signer]:7}{values}  {mean:7.3f}{spread}")
    means = "".join(f"  {mean:7.3f}" for mean in summary.mean_of_seed.values())
    spread = f" ± {summary.deviation_of_seeds:.3f}" if len(scores) > 1 else ""
    lines += [f"{'mean':{width}}  {'':7}{means}  {summary.mean:7.3f}{spread}", "", _between(results, summary)]
    return lines + [
        f"{signer}: {num} of {num_clips[signer]} clips are of signs that nobody in training makes: never recognised"
        for signer, num in results.scored.num_untrained.items()
        if num
    ]


def _between(results: Results, summary: Summary) -> str:
    """How far signers are apart, and whom it serves worst."""
    of_signer = summary.mean_of_signer
    kind, sign = ("highest", -1) if results.metric == "loss" else ("lowest", 1)
    signer = min(of_signer, key=lambda signer: (math.isfinite(of_signer[signer]), sign * of_signer[signer]))
    spread, num_clips = _deviation(list(of_signer.values())), results.scored.num_clips[signer]
    of_clips = f"{num_clips} clip{'s' if num_clips > 1 else ''}"
    return f"between signers ± {spread:.3f}; {kind} {signer}, {of_signer[signer]:.3f} of {of_clips}"


def write_table(sweep_dir: Path, results: Results, about: Mapping[str, Any]) -> None:
    """Write `table.txt`, `table.csv` (a row a signer and seed) and `results.json`."""
    scores, scored, summary = results.scores, results.scored, summarise(results.scores)
    write_text(sweep_dir / "table.txt", "\n".join([*table_lines(results), ""]))
    header = ("signer", "seed", results.metric, "num_clips")
    rows = [
        (signer, seed, score, scored.num_clips[signer]) for seed, own in scores.items() for signer, score in own.items()
    ]
    write_csv(sweep_dir / "table.csv", [header, *rows])
    write_json(
        sweep_dir / "results.json",
        {
            **about,
            "metric": results.metric,
            "mean": summary.mean,
            "deviation_of_seeds": summary.deviation_of_seeds,
            "mean_of_signer": summary.mean_of_signer,
            "scores": {str(seed): dict(own) for seed, own in scores.items()},
            "num_clips": scored.num_clips,
            "num_clips_of_untrained_signs": scored.num_untrained,
        },
    )


def draw_table(path: Path, results: Results) -> None:
    """Draw a point for each signer and seed, and the mean."""
    from ds_trainer.plots.fonts import fonts_for

    summary = summarise(results.scores)
    with fonts_for(summary.mean_of_signer):
        write_atomically(path, _table_figure(results, summary).savefig)


def _table_figure(results: Results, summary: Summary) -> "Figure":
    from ds_trainer.plots.style import BLUE, ORANGE, new_figure, place_legend, shown_name, style_axes

    scores = results.scores
    signers = sorted(summary.mean_of_signer, key=lambda signer: summary.mean_of_signer[signer])
    figure = new_figure(f"{results.metric} on signers that took no part{results.note}", 7.0, 1.6 + 0.28 * len(signers))
    axes = figure.subplots()
    for place, signer in enumerate(signers):
        of_seeds = [own[signer] for own in scores.values()]
        axes.plot(of_seeds, [place] * len(scores), "o", color=BLUE, alpha=0.6, clip_on=False)
        axes.plot(summary.mean_of_signer[signer], place, "|", color=BLUE, markersize=14, clip_on=False)
    axes.axvline(summary.mean, color=ORANGE, label=f"mean of {len(signers)} signers: {summary.mean:.3f}")
    axes.set_xlim(0, None if results.metric == "loss" else 1)
    axes.set_yticks(range(len(signers)), [shown_name(signer) for signer in signers], parse_math=False)
    style_axes(axes, "a point a seed, a line their mean", grid="x")
    place_legend(axes)
    return figure


def _deviation(values: Sequence[float]) -> float:
    if not all(map(math.isfinite, values)):  # on which `stdev` fails (Python 3.11)
        return math.nan
    return statistics.stdev(values) if len(values) > 1 else 0.0
