"""Training as a function, for notebooks and programs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ds_trainer.errors import SettingsError
from ds_trainer.job import train_in_process
from ds_trainer.task import Task, load_task_type


def train(**settings: Any) -> Path | None:
    """Train in this process as `launch/train.py` does, with the same log. Collective.

        run_dir = train(deepspeed_config="ds_configs/bf16.json", data="keypoints", num_epochs=20)

    Args:
        settings: the flags of `launch/train.py` by their names; lists for those that name several; `task` may also be
            a class of your own, wherever it is defined but within a function.

    Returns:
        The run directory on the master rank; None elsewhere, and after a dry run.

    Raises:
        UserError: what you can mend, such as an unknown setting; every problem is in its `problems`.
        StopRequested: stopped by a signal or the time limit, at a resume point: `resume=` the run directory.
    """
    best = train_in_process(list(_flags(settings)))
    return None if best is None else best.parent


def _name_of(task_type: type[Task]) -> str:
    """By what name the ranks of this job, and whoever reads the checkpoint, find a class.

    Raises:
        SettingsError: they would find none, or another one.
    """
    name = f"{task_type.__module__}:{task_type.__qualname__}"
    if "<locals>" in name:
        raise SettingsError(f"task: found {name}, defined within a function, where nothing finds it; move it out")
    if load_task_type(name) is not task_type:  # a notebook's cell that was run again, say
        raise SettingsError(f"task: found {name}, of which another was defined since; give that, or rename one of them")
    return name


def _flags(settings: Mapping[str, Any]) -> Iterator[str]:
    """Each with its value in one word: -1e-05 in a word of its own would look like another flag."""
    for name, value in settings.items():
        if isinstance(value, bool):
            yield f"--{name}" if value else f"--no-{name}"
        elif isinstance(value, type):
            yield f"--{name}={_name_of(value)}"
        elif isinstance(value, Mapping):
            raise SettingsError(f"{name}: found a {type(value).__name__}, expected a path; write it to a JSON file")
        elif value is not None:
            yield f"--{name}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}"
