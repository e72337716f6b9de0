"""Unit: settings that a task of one's own adds."""

from pathlib import Path

import pytest

from ds_trainer.command_line import load_settings
from ds_trainer.errors import SettingsError, TaskError
from ds_trainer.settings import TaskSettings, setting
from ds_trainer.tasks.toy.task import ToyTask


class Wanted(TaskSettings):
    widths: list[int] = setting([4, 2], "own", "of the layers")
    shares: tuple[float, ...] = setting((), "own", "of the data")
    depths: list[int] | None = setting(None, "own", "of the blocks")


@pytest.mark.parametrize(
    ("flags", "widths", "shares"),
    [
        ([], [4, 2], ()),
        (["--widths", "3"], [3], ()),
        (["--widths", "3, 5,7", "--shares", "0.5,1"], [3, 5, 7], (0.5, 1.0)),
        (["--widths", ""], [], ()),
    ],
)
def test_lists_of_numbers_are_given_with_commas(flags: list[str], widths: list[int], shares: tuple[float, ...]) -> None:
    task_type = type("Listing", (ToyTask,), {"settings_type": Wanted})
    settings = load_settings(["--deepspeed_config", "unused.json", *flags], lambda name: task_type)
    assert (settings.widths, settings.shares, settings.depths) == (widths, shares, None)
    settings = load_settings(["--deepspeed_config", "unused.json", "--depths", "2,3"], lambda name: task_type)
    assert settings.depths == [2, 3]
    with pytest.raises(SettingsError, match=r"--widths.1: found 'x'; input should be a valid integer"):
        load_settings(["--deepspeed_config", "unused.json", "--widths", "3,x"], lambda name: task_type)


def test_lists_in_a_recipe_hold_numbers_as_flags_do(tmp_path: Path) -> None:
    """1e-1 is a text to YAML 1.1, in a list as well."""
    task_type = type("Listing", (ToyTask,), {"settings_type": Wanted})
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("shares: [1e-1, 0.5]\nwidths: [3]\n")
    flags = ["--deepspeed_config", "unused.json", "--config", str(recipe)]
    settings = load_settings(flags, lambda name: task_type)
    assert (settings.widths, settings.shares) == ([3], (0.1, 0.5))
    recipe.write_text("shares: ['1e-1']\n")
    with pytest.raises(SettingsError, match=r"shares.0: found '1e-1'; input should be a valid number"):
        load_settings(flags, lambda name: task_type)


class Taken(TaskSettings):
    seed: str = setting("x", "own", "another seed")


@pytest.mark.parametrize(
    ("kind", "problem"), [(Taken, "seed is a setting of every run"), (dict, "found <class 'dict'>")]
)
def test_settings_that_cannot_be_added_are_told(kind: type, problem: str) -> None:
    task_type = type("Wrong", (ToyTask,), {"settings_type": kind})
    with pytest.raises(TaskError, match=problem):
        load_settings(["--deepspeed_config", "unused.json"], lambda name: task_type)
