"""Unit: text files of unknown origin."""

import os
from pathlib import Path

import pytest

from ds_trainer.text_file import is_plain, read_text


def test_text_comes_with_one_kind_of_line_end(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes("é\r\nb\rc\n".encode())
    assert read_text(tmp_path / "text") == "é\nb\nc\n"


def test_what_is_no_text_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes(b"\xe9")
    with pytest.raises(ValueError, match="it is a folder"):
        read_text(tmp_path)
    for endless in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match="it is no regular file"):
            read_text(endless)
    with pytest.raises(ValueError, match="larger than 3 bytes"):
        read_text(Path(__file__), max_bytes=3)
    with pytest.raises(ValueError, match="can't decode"):
        read_text(tmp_path / "latin")
    with pytest.raises(ValueError, match="null"):
        read_text(Path("a\x00b"))
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "absent")


@pytest.mark.parametrize(
    ("text", "expected"), [("é 🤟", True), ("", True), ("a\tb", False), ("\x7f", False), ("\udcff", False)]
)
def test_plain_text(text: str, expected: bool) -> None:
    assert is_plain(text) is expected
