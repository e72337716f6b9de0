"""How `train` names what it is given: before anything of a job is built."""

from typing import Any

import pytest
from own_tasks import Drawn

from ds_trainer import SettingsError, TaskSettings, setting, train
from ds_trainer.task import load_task_type


class Outer:
    class Inner(Drawn):
        pass


class Mine(Drawn):
    pass


First = Mine


class Mine(Drawn):  # type: ignore[no-redef]  # as a cell of a notebook that is run again
    pass


def test_class_that_another_took_the_name_of() -> None:
    with pytest.raises(SettingsError, match="task: found test_training:Mine, of which another was defined since"):
        train(task=First, deepspeed_config="unused.json")


def test_class_within_a_class_is_found() -> None:
    assert load_task_type("test_training:Outer.Inner") is Outer.Inner
    with pytest.raises(SettingsError, match=r"'test_training' has no class 'Outer\.Other' derived"):
        load_task_type("test_training:Outer.Other")


def test_class_within_a_function_is_told() -> None:
    class Local(Drawn):
        pass

    with pytest.raises(SettingsError, match=r"task: found test_training:.*<locals>\.Local, defined within a function"):
        train(task=Local)


@pytest.mark.parametrize("value", [{}, {"train_batch_size": 4}])
def test_engine_config_that_is_no_path(value: Any) -> None:
    with pytest.raises(SettingsError, match="deepspeed_config: found a dict, expected a path; write it to a JSON file"):
        train(deepspeed_config=value)


class Offsets(TaskSettings):
    offset: float = setting(0.0, "own", "of each number")
    offsets: list[float] = setting([], "own", "of each part")


class Shifted(Drawn):
    settings_type = Offsets


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"offset": -1e-5}, "no_such_folder"),
        ({"offsets": [-1.0, 2.0]}, "no_such_folder"),
        ({"runs_dir": "-runs"}, "no_such_folder"),
        ({"offset": "-x"}, "--offset: found '-x'; input should be a valid number"),
        ({"compile": "yes"}, "--compile: found 'yes' behind it, expected no value"),
    ],
)
def test_values_that_look_like_flags_are_values(given: dict[str, Any], problem: str) -> None:
    """The next thing that is wrong shows that they were taken."""
    with pytest.raises(SettingsError, match=problem):
        train(task=Shifted, deepspeed_config="no_such_folder/bf16.json", **given)
