"""What a task may not give, told before an engine is built of its model: what is said later names no weight."""

import inspect
import io
import json
import math
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader, IterableDataset

from ds_trainer.batches import size_of
from ds_trainer.checkpoint import sketched_state
from ds_trainer.engine.precision import is_divided
from ds_trainer.errors import DataError, TaskError
from ds_trainer.objective import Objective
from ds_trainer.problems import reason_of, shortened, shown
from ds_trainer.task import Task, splits_of

_MOST_BUILT_TWICE = 100_000_000
"""Numbers of a model that may be here twice for a moment: 400 MB."""


def refuse_unusable(task: Task) -> None:
    """Look through what a task says of its data, its answers and itself.

    Raises:
        DataError: a split is empty, or there is one class.
        TaskError: something is not as `Task` asks for it, which would be found out hours later.
    """
    missing = [name for name in ("train_set", "val_set", "objective") if getattr(task, name, None) is None]
    if missing:
        raise TaskError([f"the task's {name}: missing, expected to be set in __init__" for name in missing])
    if not isinstance(task.objective, Objective):
        raise TaskError(
            f"the task's objective: found a {type(task.objective).__name__}, expected a ds_trainer.Objective: "
            "Objective(loss, ...), with a loss that gives one number of each example"
        )
    splits = splits_of(task)
    shapeless = [
        f"the task's {split} split: {_told_of_shapeless(dataset)}"
        for split, dataset in splits.items()
        if not _is_map_style(dataset)
    ]
    if shapeless:
        raise TaskError(shapeless)
    for split, dataset in splits.items():
        if size_of(dataset) == 0 and split != "test":
            raise DataError(_told_of_empty(split, task))
    names = task.class_names
    if names is not None and len(names) < 2:
        raise DataError(
            f"found one class, {', '.join(map(repr, names))}, expected two or more: every answer would be right; "
            "choose more of the data, or mend its folders or labels"
        )
    problems = [*_misnamed(task), *_groupless(task, splits), *_unspeakable(task), *_uncollated(task)]
    if problems:
        raise TaskError(shortened([f"the task's {problem}" for problem in problems]))


def _told_of_empty(split: str, task: Task) -> str:
    asked = getattr(getattr(task, "settings", None), "split", None)
    fact = f"the {split} split is empty, expected at least one example"
    return f"--split {asked}: {fact}; choose another" if asked else fact


def _told_of_shapeless(dataset: Any) -> str:
    found = f"found a {type(dataset).__name__}, expected a map-style data set, with __len__ and __getitem__"
    if isinstance(dataset, DataLoader):
        return f"{found}; give its `dataset`, and its collate_fn as the task's `collate`: batches are made here"
    return f"{found}; read a stream into a list in __init__, or fetch its items by number"


def _is_map_style(dataset: Any) -> bool:
    if isinstance(dataset, IterableDataset):  # has a __getitem__, which fails
        return False
    return hasattr(dataset, "__len__") and (hasattr(dataset, "__getitem__") or hasattr(dataset, "__getitems__"))


def _misnamed(task: Task) -> Iterator[str]:
    label = task.label()
    if not label or label != Path(label).name or not label.isprintable():
        yield f"label: found {shown(label)}, expected a few words that can stand in the name of a directory"


def _groupless(task: Task, splits: Mapping[str, Any]) -> Iterator[str]:
    for split, dataset in splits.items():
        groups = task.groups(dataset)
        if groups is not None and len(groups) != size_of(dataset):
            yield f"groups: found {len(groups)} for the {size_of(dataset)} examples of the {split} split"


def _unspeakable(task: Task) -> Iterator[str]:
    """A description that no checkpoint or export could hold: they are read without running code."""
    file = io.BytesIO()
    try:
        torch.save(task.description(), file)
        file.seek(0)
        torch.load(file, weights_only=True)
        json.dumps(task.description())
    except (pickle.PickleError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        yield f"description: expected plain values ({reason_of(error)})"


def _uncollated(task: Task) -> Iterator[str]:
    """A plain function that stands in a class gets the task in place of the items."""
    try:
        inspect.signature(task.collate).bind([])
    except TypeError:
        yield "collate: cannot be called with a list of items alone; write `collate = staticmethod(...)`"
    except ValueError:
        return  # of C, whose arguments nobody knows


def refuse_untrainable(task: Task, model: nn.Module, config: Mapping[str, Any]) -> None:
    """Look through a task and its new model, which is to be trained as a resolved engine config says.

    Raises:
        TaskError: a weight has no shape yet, is complex or of another precision than is trained in, or has sparse
            gradients; no weight is trained; ZeRO-3 cannot divide one; a buffer cannot be copied; or answers have names,
            and the objective measures none.
    """
    problems = [*_shapeless(model), *_complex(model), *_sparse(model), *_uncopied(model)]
    if not any(config.get(name, {}).get("enabled") for name in ("bf16", "fp16")):  # with which all become so
        problems += _of_other_precision(model)
    if is_divided(config):
        problems += _indivisible(model)
    if not problems and not any(weight.requires_grad for weight in model.parameters()):
        problems = ["no weight is trained: all are frozen, or there is none; expected one whose requires_grad is true"]
    problems = [f"the task's model: {problem}" for problem in problems]
    problems += [f"the task's learning_rate_factor: {problem}" for problem in _useless_factors(task, model)]
    if task.class_names is not None and task.objective.measure is None:
        problems.append(
            "the task's objective: measures nothing, though there are class_names; take classification_objective, "
            "with a loss of your own if you like (dataclasses.replace), or leave class_names out"
        )
    if problems:
        raise TaskError(shortened(problems))


def refuse_misdescribed(task: Task, model: nn.Module) -> None:
    """Compare a new model with the one that its checkpoints will be read into.

    Raises:
        TaskError: they differ in a weight, as where the description lacks what decides its shape.
    """
    remedy = "expected the model of build_model; description has to hold all that it takes"
    description = task.description()
    built = model.state_dict()
    # Without memory takes torch 1.6 s for imports: for large models alone.
    is_large = sum(weight.numel() for weight in model.parameters() if not is_lazy(weight)) > _MOST_BUILT_TWICE
    described = sketched_state(type(task), description) if is_large else {}
    try:
        with torch.random.fork_rng(devices=[]):
            described = described or type(task).model_from(description).state_dict()
    except Exception as error:  # whatever a task does with a description that lacks something
        raise TaskError(
            f"the task's model_from: fails ({type(error).__name__}: {reason_of(error)}), {remedy}"
        ) from error
    for name in built | described:
        found, expected = (_shape(state[name]) if name in state else "none" for state in (described, built))
        if found != expected:
            raise TaskError(f"the task's model_from: {name}: found {found}, {remedy}: {expected}")


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, torch.Tensor) and not is_lazy(value) else "no tensor"


def _shapeless(model: nn.Module) -> Iterator[str]:
    for name, weight in model.named_parameters():
        if is_lazy(weight):
            yield (
                f"{name} has no shape yet, being of a lazy layer; give the layer its input size, or pass a batch "
                "through the model in build_model and in model_from"
            )


def _complex(model: nn.Module) -> Iterator[str]:
    for name, weight in model.named_parameters():
        if weight.requires_grad and weight.is_complex():
            yield (
                f"{name} is {str(weight.dtype).removeprefix('torch.')}, which DeepSpeed does not train; keep its real "
                "and imaginary part in a real weight, and see it through torch.view_as_complex(weight.float())"
            )


def _of_other_precision(model: nn.Module) -> Iterator[str]:
    found = {
        name: str(weight.dtype).removeprefix("torch.")
        for name, weight in model.named_parameters()
        if weight.requires_grad and weight.is_floating_point() and weight.dtype != torch.float32
    }
    if found:
        name, dtype = next(iter(found.items()))
        those = f"{name} and {len(found) - 1} more are" if len(found) > 1 else f"{name} is"
        yield (
            f"{those} {dtype}, expected float32, in which the engine config has weights trained; build them so "
            "(model.float()): precision stands in the engine config alone"
        )


def _useless_factors(task: Task, model: nn.Module) -> Iterator[str]:
    for name, weight in model.named_parameters():
        factor = task.learning_rate_factor(name) if weight.requires_grad else 1.0
        if not isinstance(factor, int | float) or not 0 < factor < math.inf:
            yield f"found {shown(factor)} for {name}, expected a number above 0; requires_grad_(False) freezes it"


def _sparse(model: nn.Module) -> Iterator[str]:
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.sparse and layer.weight.requires_grad:
            yield f"{name or 'it'} has sparse gradients, which cannot be clipped; build it with sparse=False"


def _uncopied(model: nn.Module) -> Iterator[str]:
    """Buffers that one rank cannot send to another as they are; those that no checkpoint holds are not sent."""
    buffers = dict(model.named_buffers())
    for name in model.state_dict():
        buffer = buffers.get(name)
        if buffer is None or is_lazy(buffer):
            continue
        if buffer.layout != torch.strided or buffer.is_quantized:
            kind = "quantized" if buffer.is_quantized else "sparse"
            yield f"{name} is a {kind} buffer, which is not sent to other ranks; register it with persistent=False"
        elif any(stride == 0 and size > 1 for stride, size in zip(buffer.stride(), buffer.shape, strict=True)):
            yield f"{name} is a buffer that shows one number in many places; register its clone() or contiguous()"


def _indivisible(model: nn.Module) -> Iterator[str]:
    remedy = "or use stage 1 or 2"
    for name, weight in model.named_parameters():
        if not is_lazy(weight) and weight.dim() == 0:
            yield f"{name} is a single number, which ZeRO-3 cannot divide; give it the shape (1,), {remedy}"
        elif not is_lazy(weight) and weight.numel() == 0:
            yield f"{name} holds no numbers, which ZeRO-3 cannot divide; leave it out, {remedy}"
    for name, layer in model.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            yield f"{name or 'it'} is scripted, so ZeRO-3 cannot reach its weights; take the plain module, {remedy}"
            return
