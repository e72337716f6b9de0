"""Names of signs: one a line, or the KArSL labels file."""

import json
from pathlib import Path

import pytest

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.labels import load_labels


def _write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_text_file_has_one_name_a_line(tmp_path: Path) -> None:
    labels = load_labels(_write(tmp_path / "labels.txt", "\ufeffgood morning\n  مرحبا \r\n3\n\n"))
    assert labels == ["good morning", "مرحبا", "3"]


def test_karsl_file_prefers_english_and_takes_numbers(tmp_path: Path) -> None:
    content = json.dumps({"AR_WORDS": [0, 1, "هيكل عظمي"], "EN_WORDS": [0, 1, "Skeleton"]})
    labels = load_labels(_write(tmp_path / "labels.json", content))
    assert labels == ["0", "1", "Skeleton"]


def test_karsl_file_of_arabic_alone(tmp_path: Path) -> None:
    labels = load_labels(_write(tmp_path / "labels.json", json.dumps({"AR_WORDS": ["أنف"]})))
    assert labels == ["أنف"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "found no names"),
        ("one\n\nthree\n", "found no name for sign 2"),
        ('{"EN_WORDS": ["one"', "starts like JSON but is not"),
        ('{"EN_WORDS": "one"}', "EN_WORDS: found str"),
        ('{"EN_WORDS": [["one"]]}', "expected a list of names or numbers"),
        ('{"EN_WORDS": ["one"], "AR_WORDS": ["1", "2"]}', "found 1 EN_WORDS and 2 AR_WORDS"),
        ('{"words": ["one"]}', "found no names"),
    ],
)
def test_wrong_labels_file(tmp_path: Path, content: str, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        load_labels(_write(tmp_path / "labels", content))


def test_unreadable_labels_file(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x81")
    for name in ("binary", "absent"):
        with pytest.raises(DataError, match=f"{name}: cannot be read"):
            load_labels(tmp_path / name)
