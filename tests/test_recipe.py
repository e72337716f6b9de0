"""Unit: the part of YAML that recipes may hold, and what is refused although it is YAML."""

import math
import os
from pathlib import Path
from typing import Any

import pytest

from ds_trainer.command_line import load_settings
from ds_trainer.errors import SettingsError
from ds_trainer.recipe import MAX_RECIPE_BYTES, load_recipe
from ds_trainer.task import load_task_type


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


def loaded(path: Path, text: str) -> dict[str, Any]:
    path.write_text(text, encoding="utf-8")
    return load_recipe(path)


def problems(path: Path, text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        loaded(path, text)
    return caught.value.problems


def test_plain_values(path: Path) -> None:
    recipe = loaded(path, "a: 1\nb: -2.5\nc: yes\nd: False\ne: word\nf: '3'\ng: [x, 2]\nh: ~\ni:\nj: .inf\nk: .NaN\n")
    assert math.isnan(recipe.pop("k"))
    expected = {"a": 1, "b": -2.5, "c": True, "d": False, "e": "word", "f": "3", "g": ["x", 2], "h": None, "i": None}
    assert recipe == {**expected, "j": math.inf}


@pytest.mark.parametrize(
    "text", ["010", "1:30", "0x10", "0b1", "1_000", "2001-01-01", "2001-01-01 10:00:00", "<<", "="]
)
def test_what_yaml_makes_something_else_of_is_text(path: Path, text: str) -> None:
    assert loaded(path, f"a: {text}\n") == {"a": text}
    assert loaded(path, f"{text}: 1\n") == {text: 1}


def test_name_that_stands_twice_is_told_with_its_lines(path: Path) -> None:
    assert problems(path, "seed: 1\nnum_epochs: 2\nseed: 3\nseed: 4\nparts: {a: 1, a: 2}\n") == [
        f"{path}:3: seed: stands in line 1 already; keep one",
        f"{path}:4: seed: stands in line 1 already; keep one",
        f"{path}:5: a: stands in line 5 already; keep one",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: &x [*x]\n", ":1: found an anchor (&) or alias (*); write the value out, or put it in quotes"),
        ("a: 1\nb: *x\n", ":2: found an anchor (&) or alias (*); write the value out, or put it in quotes"),
        ("a: " + "[" * 2000, ":1: found lists within lists; settings are lines of the form 'name: value'"),
        ("a: !!int x\n", ":1: found x, which is no number that can be read"),
        ("a: " + "9" * 5000, ", which is no number that can be read"),
        ("a: !!bool x\n", ":1: found x, which is not true or false"),
        ("!!map [1]\n", ":1: found a mapping (!!map) that is none; write 'name: value'"),
        ("a: !!binary aGk=\n", ": is not YAML: could not determine a constructor for the tag"),
        ("a: !!timestamp 2001-01-01\n", ": is not YAML: could not determine a constructor for the tag"),
        ("a: 1\n---\nb: 2\n", ": is not YAML: expected a single document"),
        ("? [a]\n: 1\n", "found unhashable key"),
        ("a: \x00\n", ": is not YAML: unacceptable character"),
        ("\ta: 1\n", ": is not YAML: "),
    ],
)
def test_yaml_that_is_no_recipe(path: Path, text: str, problem: str) -> None:
    (found,) = problems(path, text)
    assert found.startswith(str(path))
    assert problem in found
    assert len(found) < 400


def test_files_that_would_not_end_are_refused(path: Path) -> None:
    os.mkfifo(path)
    for endless in (path, Path("/dev/zero")):
        with pytest.raises(SettingsError, match=r"cannot be read \(it is no regular file\)"):
            load_recipe(endless)
    path.unlink()
    assert "larger than" in problems(path, "#" * (MAX_RECIPE_BYTES + 1))[0]


# -- as settings ------------------------------------------------------------------------------------------------------


def of_toy(path: Path, text: str) -> dict[str, Any]:
    path.write_text(text, encoding="utf-8")
    argv = ["--deepspeed_config", "engine.json", "--task", "toy", "--config", str(path)]
    return load_settings(argv, load_task_type).model_dump()


def test_number_with_an_exponent_is_one_where_a_number_is_expected_and_only_there(path: Path) -> None:
    settings = of_toy(path, "jitter: 1e-1\nplateau_factor: 5E-1\nruns_dir: 1e-1\n")
    assert (settings["jitter"], settings["plateau_factor"], settings["runs_dir"]) == (0.1, 0.5, Path("1e-1"))
    for text in ("jitter: '1e-1'", "seed: 1e3", "jitter: 1e-1x"):
        with pytest.raises(SettingsError, match=r"found (1000\.0|'1e-1x?'); input should be a valid"):
            of_toy(path, text)


@pytest.mark.parametrize(
    "text", [".3", "+0.3", "3.", ".5e0", "5E-1", "0.30", "1", "-1", "-0", "01", "0x1", "1_0", "0,3"]
)
@pytest.mark.parametrize("name", ["jitter", "seed"])
def test_flags_and_recipes_take_the_same_for_numbers(path: Path, name: str, text: str) -> None:
    def found(*flags: str, line: str = "") -> Any:
        path.write_text(line, encoding="utf-8")
        argv = ["--deepspeed_config", "engine.json", "--task", "toy", "--config", str(path), *flags]
        try:
            return load_settings(argv, load_task_type).model_dump()[name]
        except SettingsError as error:
            return [problem.removeprefix(f"{path}: ").removeprefix("--") for problem in error.problems]

    assert found(f"--{name}={text}") == found(line=f"{name}: {text}\n")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('runs_dir: "a\\0b"', r"runs_dir: found 'a\x00b'; expected text without control characters"),
        ('runs_dir: "\\ud800"', r"runs_dir: found '\ud800'; expected text without control characters"),
        ("runs_dir: ''", "runs_dir: found an empty text, expected a value; leave the setting out for its default"),
        ("seed: 99999999999999999999", "seed: found 99999999999999999999; expected a number below 2**63"),
        ('seed: {a: ["\\0"]}', r"seed: found '\x00'; expected text without control characters"),
        ('"a\\nb": 1', r"'a\nb': unknown name; known names: "),
    ],
)
def test_value_that_no_setting_can_have(path: Path, text: str, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        of_toy(path, text)
    (found,) = caught.value.problems
    assert found.startswith(f"{path}: {problem}")
