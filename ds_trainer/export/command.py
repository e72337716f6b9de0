"""The command line of launch/export.py."""

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ds_trainer.checkpoint import load_model, task_type_of
from ds_trainer.command import command
from ds_trainer.errors import CheckpointError, TaskError
from ds_trainer.export import formats
from ds_trainer.files import make_folder
from ds_trainer.progress import log
from ds_trainer.source import folder_of, load_source, uncalibrated
from ds_trainer.task import Deployment, Task

NUM_COMPARED = 32


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Export; return the exit status: 0, or 2 for what the user can mend."""
    arguments = _parser().parse_args(argv)
    _export(arguments)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launch/export.py",
        description="Write a trained model in a form that others can use, read it back and compare its answers.",
        allow_abbrev=False,
    )
    parser.add_argument("source", type=Path, help="a run directory (its best checkpoint), its folder resume, or a .pth")
    parser.add_argument("--to", choices=list(formats.MOST_DIFFERENCE), required=True, help="the form")
    parser.add_argument("--task", help="the task of the checkpoint, if it is one of your own: module:Class")
    parser.add_argument("--out", type=Path, help="the file to write (default: beside the source, named as the form)")
    return parser


def _export(arguments: argparse.Namespace) -> None:
    form: str = arguments.to
    checkpoint = load_source(arguments.source, arguments.task)
    task_type = task_type_of(checkpoint, arguments.task, arguments.source)
    path = arguments.out or _beside(arguments.source, form)
    model = load_model(checkpoint)
    deployment = task_type.deployment(model, checkpoint["description"])
    if not isinstance(deployment, Deployment | None):
        raise TaskError(f"the task's deployment: found {type(deployment).__name__}, expected a Deployment or None")
    if deployment is None and form not in formats.WEIGHTS:
        raise CheckpointError(
            f"--to {form}: the task {checkpoint['task']} says nothing of its inputs, expected Task.deployment; "
            f"export its weights: --to pth or --to safetensors"
        )
    make_folder(path.parent)
    formats.write(form, path, checkpoint, deployment)
    log.info(
        f"{path}: {path.stat().st_size / 2**20:.1f} MiB, from epoch {checkpoint['epoch'] + 1} of {arguments.source}"
    )
    if deployment is None:
        _compare_weights(path, model, formats.read_model(form, path, checkpoint))
    else:
        _compare(form, path, checkpoint, task_type, deployment)


def _beside(source: Path, form: str) -> Path:
    """`model` and the form; of a resume point, or a .pth of another name, its own: it is not the run's best.

    Such a .pth, exported to pth, is written in its own place.
    """
    folder = folder_of(source)
    is_best = folder == source or source.name == "best.pth"
    name = "model" if is_best else source.stem if source.is_file() else source.name
    return folder / f"{name}.{form}"


def _compare_weights(path: Path, model: nn.Module, read_back: nn.Module) -> None:
    """Raise `CheckpointError` unless all of them are the same."""
    found = read_back.state_dict()
    differing = [name for name, value in model.state_dict().items() if not torch.equal(value, found[name])]
    if differing:
        raise CheckpointError(
            f"{path}: read back, {differing[0]} and {len(differing) - 1} others differ from the source's weights, "
            "expected the same bits; do not use it, and export again"
        )
    log.info("read back: the same weights to the bit")


def _compare(
    form: str, path: Path, checkpoint: Mapping[str, Any], task_type: type[Task], deployment: Deployment
) -> None:
    """Tell the largest difference between the answers of the source and of what was read back.

    Raises:
        CheckpointError: it is larger than can be explained.
    """
    task = task_type.as_trained(checkpoint)
    if task is None or task.class_names is not None:
        for notice in uncalibrated(checkpoint):
            log.info(f"note: {notice}")
    inputs, what = _inputs(task, deployment)
    with torch.no_grad():
        expected = formats.answers_of(deployment.module)(*inputs)
        if form in formats.WEIGHTS:
            read_back = formats.read_model(form, path, checkpoint)
            again = task_type.deployment(read_back, checkpoint["description"])
            assert again is not None
            found = formats.answers_of(again.module)(*inputs)
        else:
            found = formats.read_answers(form, path, deployment.names)(*inputs)
    difference, most = largest_difference(found, expected), formats.MOST_DIFFERENCE[form]
    if not difference <= most:
        raise CheckpointError(
            f"{path}: its answers to {what} differ from the source's by {difference:.2g}, expected {most:.2g} at most; "
            "do not use it"
        )
    names = ", ".join(deployment.answers)
    log.info(f"read back: {names} of {what} differ by {difference:.2g} at most ({most:.2g} allowed)")


def largest_difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Between answers; infinite where they are of other shapes, NaN where one is NaN and the other is not."""
    if [answer.shape for answer in found] != [answer.shape for answer in expected]:
        return math.inf
    return max(float(_differences(*pair).max()) for pair in zip(found, expected, strict=True) if pair[0].numel())


def _differences(found: Tensor, expected: Tensor) -> Tensor:
    is_same = (found == expected) | (found.isnan() & expected.isnan())  # also of two infinite ones
    return torch.where(is_same, 0.0, (found.double() - expected.double()).abs())


def _inputs(task: Task | None, deployment: Deployment) -> tuple[tuple[Tensor, ...], str]:
    """Held-out examples of the data that the model was trained on, or the deployment's own; and that in words.

    Args:
        task: as trained; None: its data is not here.
    """
    recorded = None if task is None else task.recorded(NUM_COMPARED)
    if recorded is not None:
        return recorded, f"{len(recorded[0])} held-out clips"
    why = "no data here" if task is None else "Task.recorded gives none"
    return deployment.inputs, f"{len(deployment.inputs[0])} examples of the deployment ({why})"
