"""Checkpoints: a `.pth` with a trained model and what it takes to use it, without DeepSpeed, without running code.

A checkpoint is a dictionary of plain values and tensors:

    format, task, description      which model; the task rebuilds it from the description
    state_dict                     its weights in float32
    settings, engine_config        what it was trained with
    data_fingerprint               of the clips that it was trained on
    epoch, step, metrics           where in the run it was written, and what validation said
    temperature                    what its logits are divided by; absent before the run has ended
    adapted_to                     the number of unlabelled examples that launch/adapt.py adapted it to, if it did
    versions                       of Python and the packages that wrote it

A file from elsewhere is safe to load: no pickle in it is run, nothing is imported because it says so, and what would
make much of few bytes is refused (`checkpoint_room.py`). Loading notices any damage, by the checksums that torch writes
and does not look at.
"""

import json
import math
import os
import shlex
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ds_trainer.checkpoint_room import refuse_repeated, refuse_roomy_names, refuse_unfounded
from ds_trainer.errors import CheckpointError
from ds_trainer.files import write_atomically
from ds_trainer.problems import exact, legible, reason_of, shortened, shown
from ds_trainer.task import Task, load_task_type
from ds_trainer.text_file import check_regular

FORMAT = "ds_trainer checkpoint 1"

_MAX_NAME = 200
_EXPORTS = (".safetensors", ".pt2", ".onnx")
_TYPES: dict[str, type] = {"task": str, "description": dict, "state_dict": dict}
_TYPES |= {"settings": dict, "engine_config": dict, "epoch": int}


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically; `content` is all but its format."""
    write_atomically(path, lambda file: torch.save({"format": FORMAT, **content}, file))


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """What `write_checkpoint` wrote. No code that the file may carry is run.

    Raises:
        CheckpointError: the file is missing, damaged, or no checkpoint of this trainer.
    """
    checkpoint = _read(Path(path))
    found = checkpoint.get("format") if isinstance(checkpoint, dict) else type(checkpoint).__name__
    if not (isinstance(found, str) and found == FORMAT and isinstance(checkpoint, dict)):
        remedy = "load weights of other programs in a task's build_model"
        raise CheckpointError(f"{path}: found format {shown(found)}, expected {FORMAT!r}; {remedy}")
    for name, wanted in _TYPES.items():
        if not isinstance(checkpoint.get(name), wanted):
            found = type(checkpoint.get(name)).__name__
            raise CheckpointError(f"{path}: {name}: found {found}, expected {wanted.__name__}; the file is incomplete")
    _refuse_unplain(path, checkpoint)
    temperature = checkpoint.get("temperature", 1.0)
    if not (isinstance(temperature, int | float) and 0 < temperature < math.inf):
        raise CheckpointError(f"{path}: temperature: found {shown(temperature)}, expected a number above 0")
    adapted_to = checkpoint.get("adapted_to", 0)
    if not (isinstance(adapted_to, int) and adapted_to >= 0):
        raise CheckpointError(f"{path}: adapted_to: found {shown(adapted_to)}, expected a number of examples")
    return checkpoint


def _refuse_unplain(path: Path | str, checkpoint: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` where values are others than JSON has: a tensor in place of a number, say."""
    for name in ("description", "settings", "engine_config"):
        try:
            json.dumps(checkpoint[name])
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path}: {name}: found what is no plain value ({reason_of(error)}); the file is damaged"
            ) from error


def _read(path: Path) -> Any:
    if os.path.isdir(path):
        raise CheckpointError(f"{path}: it is a folder, expected a .pth, such as the best.pth of a run directory")
    try:
        check_regular(path)
        _check_sums(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        refuse_repeated(checkpoint)
        return checkpoint
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; expected the best.pth of a run directory") from error
    except Exception as error:  # a damaged file fails in many ways, each with a type of its own
        if path.suffix in _EXPORTS:
            raise CheckpointError(
                f"{path}: found an export, expected what it was made from; give the run or its .pth"
            ) from error
        raise CheckpointError(f"{path}: damaged, or no checkpoint of ds_trainer ({reason_of(error)})") from error


def _check_sums(path: Path) -> None:
    """Compare each part of the file with its checksum, which `torch.load` (2.13) does not, and see what it names."""
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("it is compressed, which torch never does")
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {shown(damaged)} is wrong")
        refuse_roomy_names(archive)


def load_model(checkpoint: Mapping[str, Any]) -> nn.Module:
    """The trained model of a checkpoint, in float32 on the CPU, in evaluation mode.

    A task of ds_trainer is imported by its name. A task of your own, `module:Class`, has to be imported before: a file
    from elsewhere could else name any module that lies in the working directory, and importing one runs it.

    Raises:
        SettingsError: there is no such task.
        CheckpointError: the task is not imported, or its model is not the one that the weights are of.
    """
    if not (isinstance(checkpoint, Mapping) and {"task", "description", "state_dict"} <= checkpoint.keys()):
        raise CheckpointError(
            f"found a {type(checkpoint).__name__}, expected what load_checkpoint gives; write "
            "load_model(load_checkpoint(path))"
        )
    name, description, weights = checkpoint["task"], checkpoint["description"], checkpoint["state_dict"]
    module_name = name.partition(":")[0]
    if len(name) > _MAX_NAME:
        raise CheckpointError(f"task: found {shown(name)}, expected the name of a task; the file is not of ds_trainer")
    if ":" in name and module_name not in sys.modules:
        raise CheckpointError(
            f"task: found {shown(name)}, which is not one of ds_trainer; nothing is imported because a file names it: "
            f"import {legible(module_name)} before, if you know it"
        )
    task_type = load_task_type(name)
    sketch = sketched_state(task_type, description)
    if sketch:
        refuse_unfounded(weights, sketch)
        _check_fit(weights, sketch)  # at first without memory for the weights: a description may ask for any size
    try:
        model = task_type.model_from(description)
        _check_fit(weights, model.state_dict())
        model.load_state_dict(weights)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a task does with a description that is not its own
        raise CheckpointError(f"description: no model of the task {shown(name)} ({reason_of(error)})") from error
    return model.eval()


def sketched_state(task_type: type[Task], description: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict of the model that is described, without memory; empty for a task that cannot do without any."""
    try:
        with torch.device("meta"):
            return task_type.model_from(description).state_dict()
    except Exception:  # what is wrong, if anything, shows where the model is built
        return {}


def task_type_of(checkpoint: Mapping[str, Any], own_task: str | None, path: Path) -> type[Task]:
    """The task of a checkpoint. One of your own is imported only if the command line names it, too.

    Args:
        own_task: what --task says.
        path: of the checkpoint, for messages.

    Raises:
        CheckpointError: it is another, or was not named: a file could else have any module imported, which runs it.
        SettingsError: there is no such task.
    """
    name = checkpoint["task"]
    if own_task is None and ":" in name:
        raise CheckpointError(
            f"{path}: task: found {shown(name)}, which is not one of ds_trainer; nothing is imported because a file "
            f"names it: add --task {shlex.quote(exact(name))}, if you know it"
        )
    if own_task is not None and own_task != name:
        raise CheckpointError(
            f"{path}: task: found {shown(name)}, expected {shown(own_task)} as --task says; correct it"
        )
    return load_task_type(name)


def _check_fit(weights: Mapping[Any, Any], expected: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` with everything in which the weights are not those of the model that is described."""
    problems = [
        f"state_dict: {name}: missing; the description is of another model" for name in expected.keys() - weights
    ]
    for name, weight in weights.items():
        if name not in expected:
            problems.append(f"state_dict: {legible(str(name))}: unknown; the description is of another model")
        elif (
            isinstance(expected[name], Tensor) and not is_lazy(expected[name]) and not _is_like(weight, expected[name])
        ):
            found = f"{weight.dtype} {tuple(weight.shape)}" if isinstance(weight, Tensor) else type(weight).__name__
            wanted = f"{expected[name].dtype} {tuple(expected[name].shape)}"
            problems.append(
                f"state_dict: {name}: found {found}, expected {wanted}; the description is of another model"
            )
    if problems:
        raise CheckpointError(shortened(sorted(problems)))


def _is_like(weight: Any, expected: Tensor) -> bool:
    if not isinstance(weight, Tensor) or weight.shape != expected.shape or weight.layout != torch.strided:
        return False
    kinds = {(tensor.is_floating_point(), tensor.is_complex()) for tensor in (weight, expected)}
    return len(kinds) == 1
