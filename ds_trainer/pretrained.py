"""Training that begins with the weights of another run, where they fit, in place of random ones."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ds_trainer.checkpoint import sketched_state
from ds_trainer.distributed import agreed
from ds_trainer.errors import CheckpointError
from ds_trainer.problems import legible, shown
from ds_trainer.progress import log
from ds_trainer.source import Checkpoint, load_source
from ds_trainer.task import Task

_LEAST_FITTING = 0.5
_MOST_NAMED = 4
_MOST_SHOWN = 40


def begin_with(path: Path, model: nn.Module, task: Task) -> list[str]:
    """Give `model` those weights of a checkpoint that fit by name and shape; return lines for the log. Collective.

    The others stay random, and so do those of the classes where these are not the same ones. The master's host alone
    needs the checkpoint, and the data that it has learnt from.

    Args:
        path: a `.pth`, or a run directory.

    Raises:
        CheckpointError: there is none, it is damaged, or less than half of the weights fit.
        DataError: it has learnt from examples that are held out here.
    """
    fitting, lines = agreed(lambda: _fitting(path, model, task))
    model.load_state_dict(fitting, strict=False)
    return lines


def _fitting(path: Path, model: nn.Module, task: Task) -> tuple[dict[str, Tensor], list[str]]:
    checkpoint = load_source(path)
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    weights = checkpoint["state_dict"]
    of_others = _of_other_classes(task, own, checkpoint["description"])
    fitting = {
        name: weights[name] for name, value in own.items() if name not in of_others and _fits(weights.get(name), value)
    }
    new = [name for name in own if name not in fitting]
    share = sum(own[name].numel() for name in fitting) / max(1, sum(value.numel() for value in own.values()))
    found = (
        f"--pretrained {path}: {len(fitting)} of {len(own)} weights are the model's, {100 * share:.0f} % of its numbers"
    )
    if share < _LEAST_FITTING:
        raise CheckpointError(
            f"{found}; expected half at least; {_first_apart(own, weights, fitting)}: give the settings of the model "
            "that it was trained with, which its run.yaml has, or load what fits in the task's build_model"
        )
    notices = not_known([checkpoint, *before(checkpoint)], task)
    more = f" and {len(new) - _MOST_NAMED} more" if new[_MOST_NAMED:] else ""
    named = f"; new are {', '.join(map(legible, new[:_MOST_NAMED]))}{more}" if new else ""
    return fitting, [f"{found}{named}", *_differences(checkpoint["description"], task.description()), *notices]


def _first_apart(own: Mapping[str, Tensor], former: Mapping[str, Any], fitting: Mapping[str, Tensor]) -> str:
    """The first weight of each side that fits none: their names tell whether one model stands within another."""
    first = [next((name for name in side if name not in fitting), None) for side in (own, former)]
    here, there = (
        "none" if name is None else f"{legible(str(name))} {tuple(getattr(side[name], 'shape', ()))}"
        for name, side in zip(first, (own, former), strict=True)
    )
    return f"the model has {here}, that run {there}"


def _of_other_classes(task: Task, own: Mapping[str, Tensor], former: Mapping[str, Any]) -> set[str]:
    """The names of the weights of the classes, those that would grow with another one, if `former` describes others.

    A row of them was learnt for another class than the one that it would stand for here.
    """
    described = task.description()
    for name, value in described.items():
        if value and value == task.class_names and _as_text(former.get(name, value)) != _as_text(value):
            grown = sketched_state(type(task), {**described, name: [*value, "one more"]})
            return {weight for weight in own.keys() & grown if grown[weight].shape != own[weight].shape}
    return set()


def _as_text(value: Any) -> str:
    """What a description holds, in its order, to be compared and shown; a file from elsewhere may hold anything."""
    return json.dumps(value, default=repr, skipkeys=True)


def _differences(former: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """A line about what is described otherwise, such as what is seen of each example: weights fit by shape alone."""
    told = []
    for name in (name for name in own if name in former):
        there, here = (_as_text(description[name]) for description in (former, own))
        if there != here:
            told.append(name if max(len(there), len(here)) > _MOST_SHOWN else f"{name} {there} (here {here})")
    if not told:
        return []
    remedy = "give what that run's run.yaml has, unless it is meant so"
    return [f"--pretrained was trained with other settings: {', '.join(told)}; {remedy}"]


def not_known(checkpoints: Sequence[Checkpoint], task: Task) -> list[str]:
    """What must be told where training begins with these: what they may have learnt of what the task holds out.

    Raises:
        DataError: they have.
    """
    notices = [notice for each in checkpoints for notice in task.check_pretrained(each)]
    if num_adapted := adapted_to(checkpoints):
        notices.append(
            f"--pretrained was adapted to {num_adapted} examples, of whom is not known: what is held out here may be "
            "among them; give the run that it was made of, if it may"
        )
    return notices


def before(checkpoint: Checkpoint) -> Iterator[Checkpoint]:
    """The checkpoints that this one, too, began with, as far as they are here: they have learnt as well."""
    paths: list[str] = []
    while (path := dict(checkpoint.get("settings", {})).get("pretrained")) and path not in paths:
        if not isinstance(path, str):
            raise CheckpointError(f"settings: pretrained: found {shown(path)}, expected a path; the file is damaged")
        paths.append(path)
        try:
            checkpoint = load_source(Path(path))
        except CheckpointError:
            log.warning(f"note: {path}, whose weights it began with, is not here: what that had learnt is not checked")
            return
        yield checkpoint


def adapted_to(checkpoints: Iterable[Checkpoint]) -> int:
    """To how many examples without labels `launch/adapt.py` has adapted these."""
    return sum(each.get("adapted_to", 0) for each in checkpoints)


def _fits(weight: Tensor | None, own: Tensor) -> bool:
    return (
        isinstance(weight, Tensor)
        and weight.shape == own.shape
        and weight.is_floating_point() == own.is_floating_point()
        and weight.layout == torch.strided
    )
