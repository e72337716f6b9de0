"""The page of a run: what was trained on what, how it went, what it reaches and where it fails.

Axes: N examples, T frames, K points, D coordinates.
"""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ds_trainer.calibration import Calibration
from ds_trainer.classification import class_scores, confusion_matrix, most_frequent_confusions, targets_and_predictions
from ds_trainer.plots.calibration import calibration_figure
from ds_trainer.plots.curves import curve_figures
from ds_trainer.report.answers import Answers
from ds_trainer.report.figures import svg_of
from ds_trainer.report.html import write_html
from ds_trainer.run.reading import read_json, read_yaml
from ds_trainer.task import Skeleton

NUM_DRAWN = 12
"""Wrong answers that are drawn: as many as one looks at."""

_MOST_FRAMES = 100
_SIDE = 1000
"""Skeletons are drawn on a grid of so many units: finer than any screen shows them, and short to write."""


@dataclass(frozen=True)
class Scored:
    """What is told of the best checkpoint.

    Args:
        title: the split and the epoch.
        whole: loss and metrics by name.
        by_group: the same for each group, and `num_examples`.
        class_names: empty if the task has no classes; all below is then None or empty, too.
        drawn: of the wrong answers `answers.worst(NUM_DRAWN)`, if they can be drawn.
    """

    title: str
    whole: Mapping[str, float]
    by_group: Mapping[str, Mapping[str, float]]
    class_names: Sequence[str] = ()
    answers: Answers | None = None
    calibration: Calibration | None = None
    drawn: Sequence[Skeleton] = ()


def write_page(run_dir: Path, records: Sequence[Mapping[str, Any]], title: str, scored: Scored) -> Path:
    """Write report.html into the run directory, from what stands there and what was scored; return the file.

    Args:
        records: the lines of metrics.jsonl.
        title: what the run is called.
    """
    engine = read_json(run_dir / "engine.json")
    environment = read_json(run_dir / "environment.json")
    hosts = environment.get("hosts", [environment["host"]])
    settings = read_yaml(run_dir / "run.yaml")
    curves = curve_figures(records, engine.get("gradient_clipping") or None)
    path = run_dir / "report.html"
    write_html(
        path,
        "report.html",
        title=title,
        run_name=run_dir.name,
        scored=scored,
        metrics=list(scored.whole),
        curves=[svg_of(figure, "a curve over the epochs") for figure in curves],
        classes=_class_rows(scored),
        data=_page_data(scored),
        calibration=_calibration_svg(scored.calibration),
        environment=environment,
        hosts=hosts,
        command=_command(environment, len(hosts)),
        settings=settings,
        engine=json.dumps(engine, indent=1),
    )
    return path


def _command(environment: Mapping[str, Any], num_hosts: int) -> str:
    """What starts as many ranks again on one host; on several, what their launcher started as a rank."""
    words = [word for word in shlex.split(environment["command"]) if not word.startswith("--local_rank=")]
    if environment["world_size"] > 1 and num_hosts == 1:
        words[:1] = ["deepspeed", "--num_gpus", str(environment["world_size"])]  # in place of Python
    return shlex.join(words)


def _class_rows(scored: Scored) -> list[dict[str, Any]]:
    """A row for each class that has examples, the worst first; those as bad as each other in the order of classes."""
    if scored.answers is None:
        return []
    names, measures_NM = scored.class_names, scored.answers.measures_NM
    scores = class_scores(measures_NM, len(names))
    confusions = most_frequent_confusions(confusion_matrix(measures_NM, len(names)), len(measures_NM))
    taken_for = {pair.true: names[pair.predicted] for pair in reversed(confusions)}
    rows = [
        {
            "name": names[number],
            "examples": int(scores.support[number]),
            "precision": float(scores.precision[number]),
            "recall": float(scores.recall[number]),
            "f1": float(scores.f1[number]),
            "taken_for": taken_for.get(number, ""),
        }
        for number in np.flatnonzero(scores.support).tolist()
    ]
    return sorted(rows, key=lambda row: row["f1"])


def _calibration_svg(calibration: Calibration | None) -> str | None:
    if calibration is None:
        return None
    return svg_of(calibration_figure(calibration, ""), "accuracy of answers by their confidence")


def _page_data(scored: Scored) -> dict[str, Any]:
    """What the page's own program reads."""
    answers = scored.answers
    if answers is None:
        return {}
    groups = list(dict.fromkeys(answers.groups))
    true_N, predicted_N = targets_and_predictions(answers.measures_NM)
    columns = {
        "true": true_N.tolist(),
        "predicted": predicted_N.tolist(),
        "confidence": [None if math.isnan(value) else round(value, 3) for value in answers.confidence_N.tolist()],
        "name": answers.names,
        "group": [groups.index(group) for group in answers.groups],
    }
    return {
        "classes": list(scored.class_names),
        "groups": groups,
        "answers": columns,
        "worst": answers.worst(NUM_DRAWN).tolist(),
        "drawn": [_on_grid(skeleton) for skeleton in scored.drawn],
    }


def _on_grid(skeleton: Skeleton) -> dict[str, Any]:
    """A skeleton in whole numbers from 0 to `_SIDE`, -1 where a point is missing."""
    num_frames = len(skeleton.points_TKD)
    chosen = np.linspace(0, num_frames - 1, min(num_frames, _MOST_FRAMES)).round().astype(int)
    points_TKD = skeleton.points_TKD[chosen]
    is_there_TK = np.isfinite(points_TKD).all(-1)
    frames: list[list[int]] = []
    if is_there_TK.any():
        low_D, high_D = points_TKD[is_there_TK].min(0), points_TKD[is_there_TK].max(0)
        unit = max(float((high_D - low_D).max()), 1e-6) / _SIDE
        centred_TKD = (points_TKD - (low_D + high_D) / 2) / unit + _SIDE / 2
        grid_TKD = np.where(is_there_TK[..., None], np.nan_to_num(centred_TKD).round(), -1).astype(int)
        frames = grid_TKD.reshape(len(chosen), -1).tolist()
    return {"frames": frames, "parts": list(skeleton.parts_K), "bones": [list(bone) for bone in skeleton.bones]}
