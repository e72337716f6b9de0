"""Unit: slips and nonsense on the command line, each told in a line of its own."""

import sys
from pathlib import Path

import pytest
from launching import ROOT, run

from ds_trainer.command_line import load_settings
from ds_trainer.errors import SettingsError
from ds_trainer.settings import RunSettings
from ds_trainer.task import load_task_type

TOY = ["--deepspeed_config", "engine.json", "--task", "toy"]


def load(*argv: str) -> RunSettings:
    return load_settings(argv, load_task_type)


def problems(*argv: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(*argv)
    return caught.value.problems


def test_value_behind_a_switch_is_told_with_all_other_problems() -> None:
    assert problems(*TOY, "--dry_run=yes", "--no-verbose=1", "--deepspeed=x", "--help=x", "--seed", "x") == [
        "--dry_run: found 'yes' behind it, expected no value; write --dry_run or --no-dry_run",
        "--no-verbose: found '1' behind it, expected no value; write --verbose or --no-verbose",
        "--deepspeed: found 'x' behind it, expected no value; write --deepspeed",
        "--help: found 'x' behind it, expected no value; write --help",
        "--seed: found 'x'; input should be a valid integer",
    ]


@pytest.mark.parametrize("name", ["config", "runs_dir", "resume"])
def test_empty_value_is_told(name: str) -> None:
    """As `--runs_dir=$RUNS` gives where the variable is not set; it was taken for the working directory."""
    (problem,) = problems(*TOY, f"--{name}=")
    assert "cannot be read (it is a folder)" in problem or f"--{name}: found an empty text" in problem


def test_what_an_earlier_version_allowed_is_told_as_the_runs() -> None:
    earlier = {"task": "toy", "deepspeed_config": "engine.json", "seed": "early"}
    with pytest.raises(SettingsError, match="settings of the run: seed: found 'early'"):
        load_settings([], load_task_type, earlier)
    assert load_settings(["--seed", "2"], load_task_type, earlier).seed == 2


def test_empty_list_of_names_means_all() -> None:
    sign = ["--deepspeed_config", "engine.json", "--data", "clips.npz"]
    assert load(*sign, "--signers=", "--parts", "").model_dump()["parts"] == ()


@pytest.mark.parametrize("text", ["9" * 30, "-" + "9" * 30])
def test_number_that_no_computer_holds_is_told(text: str) -> None:
    assert f"--seed: found {text}; expected a number below 2**63" in problems(*TOY, f"--seed={text}")


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 5000, "[1]", "{}", '"' * 99])
def test_what_is_no_number_is_shown_in_short(text: str) -> None:
    (problem,) = problems(*TOY, f"--seed={text}")
    assert problem.startswith("--seed: found '")
    assert len(problem) < 150


def test_argument_that_is_not_utf8_is_shown_escaped() -> None:
    assert problems(*TOY, "--runs_dir", "\udcff", "a\nb") == [
        r"found '\udcff'; expected UTF-8 without control characters",
        r"found 'a\nb'; expected UTF-8 without control characters",
    ]


@pytest.mark.slow
def test_locale_that_does_not_read_utf8_is_told_with_the_remedy(tmp_path: Path) -> None:
    prepare = [sys.executable, ROOT / "launch" / "prepare.py", "--data", tmp_path / "علامات"]
    for is_utf8, told in (("0", "it was read as ascii, the locale's: export PYTHONUTF8=1\n"), ("1", "علامات: missing")):
        finished = run(prepare, env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": is_utf8})
        assert finished.returncode == 2
        assert told in finished.stdout


def test_many_problems_are_told_at_once_and_in_short() -> None:
    found = problems(*TOY, *(f"--flag_{number}=1" for number in range(10_000)))
    assert len(found) == 21
    assert found[-1] == "... and 9980 more words that no flag asks for"


def test_seed_as_large_as_can_be_trains(tmp_path: Path) -> None:
    task = load_task_type("toy")(load(*TOY, f"--seed={2**63 - 1}"))
    assert task.build_model() is not None
