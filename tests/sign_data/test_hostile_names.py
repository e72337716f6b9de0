"""Names of files that a terminal would act on: told in one line, with escapes in their place."""

from pathlib import Path

import pytest

from ds_trainer.errors import DataError, SettingsError
from ds_trainer.progress import log, start_log, tell_problems
from ds_trainer.tasks.sign.prepare import resolve_store
from ds_trainer.text_file import is_plain

HOSTILE = {
    "newline": ("a\nerror: b.npz", r"a\u000aerror: b.npz"),
    "escape": ("\x1b[2J\x1b[31mred.npz", r"\u001b[2J\u001b[31mred.npz"),
    "one byte escape": ("\x9b2J.npz", r"\u009b2J.npz"),
    "turned": ("\u202ezpn.npz", r"\u202ezpn.npz"),
    "no UTF-8": ("\udcff.npz", r"\udcff.npz"),
}


@pytest.mark.parametrize(("name", "shown"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_damaged_file_is_told_in_one_line(tmp_path: Path, name: str, shown: str) -> None:
    for sign in ("hello", "bye"):
        (tmp_path / "clips" / sign).mkdir(parents=True)
        (tmp_path / "clips" / sign / name).write_bytes(b"no archive")
    with pytest.raises(DataError) as caught:
        resolve_store(tmp_path / "clips", None, tmp_path / "stores", None)
    assert any(shown in problem for problem in caught.value.problems), caught.value.problems
    for problem in caught.value.problems:
        assert is_plain(problem), repr(problem)
        assert not set(problem) & set("\x9b\u202e"), repr(problem)


def test_a_line_of_the_log_does_not_clear_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    start_log()
    log.info("found runs/\x1b[2J, and\n\ta second line")
    tell_problems(["found \x1b]0;title\x07 in it"])
    assert capsys.readouterr().out.splitlines() == [
        r"found runs/\u001b[2J, and",
        "\ta second line",
        r"error: found \u001b]0;title\u0007 in it",
    ]


def test_names_in_other_scripts_stay_as_they_are() -> None:
    for name in ("\u0645\u0631\u062d\u0628\u0627\u200f", "\u4f60\u597d", "na\u00efve", "\U0001f91f"):
        assert SettingsError(f"found {name}").problems == [f"found {name}"]
