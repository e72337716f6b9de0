"""The table of answers: a row an example, with the names of its true class and of the one it was taken for."""

import csv
from pathlib import Path

from test_report import ARABIC, EVIL, scored_of


def test_answers_as_a_table(tmp_path: Path) -> None:
    scored = scored_of(26)
    scored.answers.write(tmp_path / "answers.csv", list(scored.class_names))
    rows = list(csv.DictReader((tmp_path / "answers.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 26 * 4
    assert [row["is_right"] for row in rows] == [str(int(value)) for value in scored.calibration.is_right_N]
    assert rows[20]["true"] == EVIL
    for column, name in ((0, "true"), (2, "predicted")):
        numbers = scored.answers.measures_NM[:, column].int().tolist()
        assert [row[name] for row in rows] == [scored.class_names[number] for number in numbers]
    assert rows[0] == {
        "name": "clip 0", "group": "signer 0", "true": f"{ARABIC} 0", "predicted": rows[0]["predicted"],
        "confidence": "0.200000", "is_right": rows[0]["is_right"],
    }  # fmt: skip
