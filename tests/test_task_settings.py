"""Unit: settings that a task of one's own adds."""

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


class Taken(TaskSettings):
    seed: str = setting("x", "own", "another seed")


@pytest.mark.parametrize(
    ("kind", "problem"), [(Taken, "seed is a setting of every run"), (dict, "found <class 'dict'>")]
)
def test_settings_that_cannot_be_added_are_told(kind: type, problem: str) -> None:
    task_type = type("Wrong", (ToyTask,), {"settings_type": kind})
    with pytest.raises(TaskError, match=problem):
        load_settings(["--deepspeed_config", "unused.json"], lambda name: task_type)
