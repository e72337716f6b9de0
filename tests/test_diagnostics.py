"""Unit: the plots of a run, read back from their figures, and the report, against sums by hand."""

import csv
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn import overlapping, records_of, shown_texts
from matplotlib.image import imread

from ds_trainer.classification import class_scores, confusion_matrix, measure, most_frequent_confusions
from ds_trainer.diagnostics import visualize_metrics
from ds_trainer.plots.classes import MOST_NAMED, class_scores_figure, confusion_figure, confusions_figure
from ds_trainer.plots.style import LONGEST_NAME, shown_confusion, shown_name, spread


def measures_of(num_classes: int, num_each: int, noise: float) -> torch.Tensor:
    """Measures of a classifier by distance in a random space, in which class 3 lies on top of class 4."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.nn.functional.normalize(torch.randn(num_classes, 6, generator=generator), dim=1)
    centres[3] = centres[4] * 1.5
    targets = torch.arange(num_classes).repeat_interleave(num_each)
    points = torch.where(targets == 3, 4, targets)
    clips = centres[points] + noise * torch.randn(len(targets), 6, generator=generator)
    return measure(-torch.cdist(clips, centres), targets)


def names_of(num_classes: int, script: str = "latin") -> list[str]:
    if script == "arabic":
        words = ["شمس", "مدرسة", "بيت", "كتاب", "أخت", "طبيب", "مستشفى", "لا"]
        return [" ".join(words) for words in product(words, repeat=3)][:num_classes]
    return [f"sign number {index}" for index in range(num_classes)]


def test_all_files_are_written_and_hold_a_picture(tmp_path: Path) -> None:
    out_dir = tmp_path / "run" / "diagnostics"
    paths = visualize_metrics(
        out_dir, records_of(4), measures_of(26, 6, 0.3), names_of(26), "run", gradient_clipping=1.0
    )
    assert [path.name for path in paths] == [
        "curves.png",
        "confusion_matrix.png",
        "class_scores.png",
        "confusions.png",
        "classification_report.csv",
    ]
    assert sorted(out_dir.iterdir()) == sorted(paths)
    for path in paths[:-1]:
        assert imread(path).std() > 0.05


def test_report_by_hand(tmp_path: Path) -> None:
    logits = torch.eye(4)[[0, 0, 1, 1, 1, 0]]
    measures = measure(logits, torch.tensor([0, 0, 0, 1, 1, 2]))  # class 3 is unknown to targets and predictions
    paths = visualize_metrics(tmp_path, records_of(1), measures, ["نعم", "no, thanks", "no, thanks", "never"], "")
    with paths[-1].open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    f1 = (2 / 3, 2 * (2 / 3) / (5 / 3), 0.0)
    expected: list[Sequence[Any]] = [
        ("نعم", 2 / 3, 2 / 3, f1[0], 3),
        ("no, thanks", 2 / 3, 1.0, f1[1], 2),
        ("no, thanks", 0.0, 0.0, f1[2], 1),
        ("never", 0.0, 0.0, 0.0, 0),
        ("accuracy", "", "", 4 / 6, 6),
        ("macro avg", (2 / 3 + 2 / 3) / 3, (2 / 3 + 1) / 3, sum(f1) / 3, 6),
        ("weighted avg", (3 * 2 / 3 + 2 * 2 / 3) / 6, (2 + 2) / 6, (3 * f1[0] + 2 * f1[1]) / 6, 6),
    ]
    assert rows[0] == ["class", "precision", "recall", "f1-score", "support"]
    assert rows[1:] == [[cell if isinstance(cell, str) else _written(cell) for cell in row] for row in expected]


def _written(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6f}"


@pytest.mark.parametrize(
    ("num_classes", "script"), [(26, "arabic"), (MOST_NAMED, "latin"), (MOST_NAMED + 1, "latin"), (502, "arabic")]
)
def test_texts_neither_overlap_nor_leave_the_figure(num_classes: int, script: str) -> None:
    measures, names = measures_of(num_classes, 4, 0.2), names_of(num_classes, script)
    counts = confusion_matrix(measures, num_classes)
    assert overlapping(confusion_figure(counts, names, "2026-11-22_14-03-09-run")) == []
    assert overlapping(class_scores_figure(class_scores(measures, num_classes), names, "2026-11-22_14-03-09-run")) == []
    assert overlapping(confusions_figure(counts, names, "2026-11-22_14-03-09-run")) == []


@pytest.mark.parametrize("num_classes", [26, 502])
def test_the_worst_class_and_the_worst_confusion_are_named(num_classes: int) -> None:
    measures, names = measures_of(num_classes, 12, 0.1), names_of(num_classes)
    counts = confusion_matrix(measures, num_classes)
    worst = most_frequent_confusions(counts, 1)[0]
    assert (worst.true, worst.predicted, worst.support) == (3, 4, 12)
    scores_figure = class_scores_figure(class_scores(measures, num_classes), names, "")
    shown_texts(scores_figure)
    first_row = scores_figure.axes[-1].get_yticklabels()[0].get_text()
    assert first_row == shown_name("sign number 3")
    heat_map_texts = " ".join(text.get_text() for text in shown_texts(confusion_figure(counts, names, "")))
    bar_texts = [text.get_text() for text in shown_texts(confusions_figure(counts, names, ""))]
    assert shown_confusion("sign number 3", "sign number 4") in bar_texts
    assert f" {worst.count} of 12" in bar_texts
    assert (
        shown_confusion("sign number 3", "sign number 4") if num_classes == 502 else shown_name("sign number 3")
    ) in heat_map_texts


def test_confusions_are_ordered_by_count_then_by_share() -> None:
    counts = np.array([[9, 2, 1], [2, 2, 0], [0, 0, 5]])
    found = [(pair.true, pair.predicted, pair.count, pair.support) for pair in most_frequent_confusions(counts, 5)]
    assert found == [(1, 0, 2, 4), (0, 1, 2, 12), (0, 2, 1, 12)]


def test_classes_that_share_a_name_keep_their_own_rows() -> None:
    measures = measures_of(26, 4, 0.3)
    figure = class_scores_figure(class_scores(measures, 26), ["same"] * 26, "")
    shown_texts(figure)
    assert len({label.get_position()[1] for label in figure.axes[0].get_yticklabels()}) == 26


def test_no_confusions_and_classes_without_examples_are_said() -> None:
    measures = torch.tensor([[0.0, 0, 0], [1, 0, 1]]).double()
    bars = confusions_figure(confusion_matrix(measures, 3), ["a", "b", "c"], "")
    assert "no confusions" in [text.get_text() for text in shown_texts(bars)]
    scores = class_scores_figure(class_scores(measures, 3), ["a", "b", "c"], "")
    assert "F1 of 2 classes; 1 without examples left out" in [text.get_text() for text in shown_texts(scores)]


def test_names_are_drawn_as_they_are_whatever_they_hold() -> None:
    names = ["costs $5", "$x_{$", "a\nb", "long " * 20, "", "100%"]
    measures = measures_of(6, 4, 0.3)
    texts = [text.get_text() for text in shown_texts(confusion_figure(confusion_matrix(measures, 6), names, "$a_{$"))]
    assert {shown_name("costs $5"), shown_name("$x_{$"), shown_name("a b")} <= set(texts)
    assert overlapping(confusion_figure(confusion_matrix(measures, 6), names, "")) == []


def test_long_titles_stay_within_narrow_figures() -> None:
    figure = confusion_figure(np.eye(2, dtype=np.int64), ["yes", "no"], "2026-11-22_14-03-09-" + "a long name " * 10)
    assert overlapping(figure) == []


@pytest.mark.parametrize("positions", [[], [5.0], [1.0, 1.0, 1.0], [9.0, 0.0, 9.5, 10.0], [0.0, 10.0]])
def test_spread_keeps_the_order_the_gaps_and_the_bounds(positions: list[float]) -> None:
    places = spread(positions, 2.0, 10.0)
    order = np.argsort(positions, kind="stable")
    in_order = np.array(places)[order]
    assert (np.diff(in_order) >= 2.0).all()
    assert all(0.0 <= place <= 10.0 for place in places)
    assert spread([2.0, 8.0, 5.0], 2.0, 10.0) == [2.0, 8.0, 5.0]  # far enough apart: left where they are


def test_long_names_of_one_beginning_are_told_apart() -> None:
    """Their middle is left out."""
    names = [f"a long name of a sign that has {number} variants" for number in (1, 2)]
    first, second = (shown_name(f"{name} {name[29:32]}") for name in names)
    assert first != second
    assert all(len(shown) == LONGEST_NAME + 2 for shown in (first, second)), "and two marks of direction"
    assert shown_name("short") != shown_name("shorter")
