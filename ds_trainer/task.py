"""The seam between the trainer and a problem to train on.

The core knows nothing of signs: what it needs to know of a problem stands here. `ds_trainer.tasks.sign` is one task,
`ds_trainer.tasks.toy` a minimal second one, and a class of your own a third: `--task my_module:MyTask`.
"""

import functools
import importlib
import inspect
import pkgutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from ds_trainer.batches import size_of
from ds_trainer.command_line import load_settings
from ds_trainer.errors import SettingsError, TaskError, UserError
from ds_trainer.objective import Objective
from ds_trainer.problems import nearest_name
from ds_trainer.randomness import Draw, seed_all
from ds_trainer.settings import RunSettings, TaskSettings


@dataclass(frozen=True)
class Deployment:
    """A model as it is used elsewhere: from what is recorded to answers.

    Args:
        module: in evaluation mode; it answers with a tensor, or a tuple, list or dictionary of tensors.
        inputs, names: an example of each input, of at least two examples, and what it is called.
        dynamic_axes: for each input the axes that may have other lengths, and their names.
        about: what its users must know, such as the names of classes: plain values.
        answers: names of the tensors that it answers with, in their order.
    """

    module: nn.Module
    inputs: tuple[Tensor, ...]
    names: tuple[str, ...]
    dynamic_axes: tuple[Mapping[int, str], ...]
    about: Mapping[str, Any]
    answers: tuple[str, ...] = ("logits",)


T = TypeVar("T", bound="Task")


@dataclass(frozen=True)
class Skeleton:
    """An example as it moves, to be drawn.

    Args:
        points_TKD: float32[T, K, 2], of each frame, x to the right and y downwards; NaN where a point is missing.
        parts_K: for each point the number of the part that it belongs to.
        bones: pairs of points with a line between them.
    """

    points_TKD: NDArray[np.float32]
    parts_K: Sequence[int]
    bones: Sequence[tuple[int, int]]


class Task(ABC):
    """A problem to train on: data, model, objective.

    Building one reads the data, before there is a model or an engine, so that bad data ends the job at once.
    A task never imports DeepSpeed: a trained model must be usable without it.

    Attributes:
        settings_type: the settings that this task adds to the command line.
        train_set, val_set, test_set: map-style data sets; `test_set` is None, or empty, where nothing was held out.
        objective: what to minimise and what to measure.
        class_names: names of the classes, of which each example has one and the model scores each, float[B, S]; the
            objective's measures then begin with those of `classification.measure`. None: no such classification.
        notices: lines about the data that the log must show.
        num_workers: processes that fetch items of the data sets; 0 fetches in the training process.
    """

    settings_type: ClassVar[type[TaskSettings]] = TaskSettings
    train_set: Dataset[Any]
    val_set: Dataset[Any]
    test_set: Dataset[Any] | None = None
    objective: Objective
    class_names: list[str] | None = None
    notices: Sequence[str] = ()
    num_workers: int = 0
    collate: Callable[[list[Any]], Any] = staticmethod(default_collate)

    @abstractmethod
    def __init__(self, settings: Any):
        """Read the data that `settings`, an object of `settings_type`, names.

        Raises:
            DataError: the data is missing or damaged.
            SettingsError: the settings do not fit the data.
        """

    @classmethod
    def recipe_for(cls, flags: Mapping[str, str]) -> Path | None:
        """The recipe to use where the command line, whose flags are given as they were typed, names none."""
        return None

    @abstractmethod
    def build_model(self) -> nn.Module:
        """A new model, in float32 on the CPU; its weights follow torch's seed."""

    def learning_rate_factor(self, name: str) -> float:
        """What a weight, by its first name in the model, takes of the learning rate: 0.1 if it is pretrained, say."""
        return 1.0

    @abstractmethod
    def label(self) -> str:
        """A few words for the name of the run directory, without spaces or slashes."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """What a checkpoint must hold to rebuild the model and read its answers: values that JSON has."""

    @classmethod
    @abstractmethod
    def model_from(cls, description: Mapping[str, Any]) -> nn.Module:
        """The model that `description` describes, with untrained weights, without reading any data."""

    @classmethod
    def deployment(cls, model: nn.Module, description: Mapping[str, Any]) -> "Deployment | None":
        """A trained model with all that comes before it, to be exported; None: it can be exported as weights alone."""
        return None

    @classmethod
    def as_trained(cls, checkpoint: Mapping[str, Any]) -> Self | None:
        """The task with the settings and the data that a checkpoint was trained with; None where they are not here."""
        try:
            settings = load_settings(["--task", checkpoint["task"]], load_task_type, checkpoint["settings"])
            return build_task(cls, settings)
        except (UserError, OSError, ValueError, KeyError):  # moved, deleted, or of another version
            return None

    def check_pretrained(self, checkpoint: Mapping[str, Any]) -> list[str]:
        """Look whether a model that is to be trained on, of any task, knows what is held out; return lines for the log.

        Raises:
            DataError: it has learnt from examples of the test split.
        """
        return []

    def check_scored(self, dataset: Dataset[Any], checkpoints: Sequence[Mapping[str, Any]]) -> list[str]:
        """Look whether a model, by its checkpoint and those that it began with, has learnt from examples of a data set
        that it is scored on; return what must be told."""
        return []

    def number_as_in(self, description: Mapping[str, Any]) -> None:
        """Number the classes, and prepare examples, as a trained model of this `description` is used to.

        Raises:
            DataError: a class is none of the model's.
        """
        return None

    def recorded(self, limit: int) -> tuple[Tensor, ...] | None:
        """Inputs of the deployment from up to `limit` examples that took no part in training."""
        return None

    def prepare(self, items: Any, device: torch.device, draw: Draw | None) -> tuple[tuple[Tensor, ...], Any]:
        """Collated items of a data set -> (inputs of the model, targets of the objective), on `device`.

        The default expects items of the form (input, target). Augmentation belongs here, on whole batches.

        Args:
            draw: the random numbers of the batch in training, on the CPU; None asks for the items as they are.
        """
        if not (isinstance(items, tuple | list) and len(items) == 2):
            kind = f"{len(items)} parts" if isinstance(items, tuple | list) else type(items).__name__
            raise TaskError(
                f"the task's items: found {kind}, expected (input, target); or give the task a `prepare` of its own"
            )
        inputs, targets = items
        for part, value in (("input", inputs), ("target", targets)):
            if not hasattr(value, "to"):  # such as a list of texts
                raise TaskError(
                    f"the task's items: each {part} of a batch comes as {type(value).__name__}, expected a tensor: "
                    "numbers in place of texts, say; or give the task a `prepare` of its own"
                )
        return (inputs.to(device, non_blocking=True),), targets.to(device, non_blocking=True)

    def groups(self, dataset: Dataset[Any]) -> Sequence[str] | None:
        """The group of each example of one of the data sets by which results are told too, such as its signer."""
        return None

    def skeletons(self, dataset: Dataset[Any], places: Sequence[int]) -> Sequence[Skeleton] | None:
        """Some examples of one of the data sets as they move; None: they cannot be drawn."""
        return None

    def fingerprint(self) -> str:
        """Identifies the data, so that no run goes on with other data: sizes of splits, a version tells more."""
        return ", ".join(f"{size_of(dataset)} {split}" for split, dataset in splits_of(self).items())


def build_task(task_type: type[T], settings: RunSettings) -> T:
    """The task with its data. What it draws at random, such as a split, is the same on every rank and at each start.

    Raises:
        TaskError: its class lacks what `Task` asks for.
    """
    if inspect.isabstract(task_type):
        missing = ", ".join(sorted(task_type.__abstractmethods__))
        raise TaskError(f"the task's class {task_type.__name__}: found no {missing}, expected a method of each name")
    seed_all(settings.seed)
    return task_type(settings)


def splits_of(task: Task) -> dict[str, Dataset[Any]]:
    """The data sets of a task by what they are called; a test split only where there is one."""
    named = {"training": task.train_set, "validation": task.val_set, "test": task.test_set}
    return {split: dataset for split, dataset in named.items() if dataset is not None}


def load_task_type(name: str) -> type[Task]:
    """The task called `name`: a package of `ds_trainer.tasks`, or `module:Class` found from the working directory.

    Raises:
        SettingsError: there is no such task.
    """
    if ":" not in name:
        known = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / "tasks")])]
        if name not in known:
            raise SettingsError(f"--task: found {name!r}; {nearest_name(name, known)} (or your own, as module:Class)")
        name = f"ds_trainer.tasks.{name}:TASK"
    elif str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    module_name, _, class_name = name.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise SettingsError(f"--task: found {name!r}; expected a task of ds_trainer.tasks, or your own as module:Class")
    try:
        module: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and imports something that is not
        raise SettingsError(f"--task: no module {module_name!r} in the working directory or installed") from error
    task_type = functools.reduce(lambda found, part: getattr(found, part, None), class_name.split("."), module)
    if not (isinstance(task_type, type) and issubclass(task_type, Task)):
        raise SettingsError(f"--task: {module_name!r} has no class {class_name!r} derived from ds_trainer.task.Task")
    return task_type
