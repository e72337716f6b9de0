"""Training that begins with the weights of another run, where they fit, in place of random ones."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ds_trainer.distributed import agreed
from ds_trainer.errors import CheckpointError
from ds_trainer.export.source import Checkpoint, load_source
from ds_trainer.problems import legible
from ds_trainer.progress import log
from ds_trainer.task import Task

_LEAST_FITTING = 0.5
_MOST_NAMED = 4


def begin_with(path: Path, model: nn.Module, task: Task) -> list[str]:
    """Give `model` those weights of a checkpoint that fit by name and shape; return lines for the log. Collective.

    The others, such as those of classes that are more or fewer, stay random. The master's host alone needs the
    checkpoint, and the data that it has learnt from.

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
    fitting = {name: weights[name] for name, value in own.items() if _fits(weights.get(name), value)}
    new = [name for name in own if name not in fitting]
    share = sum(own[name].numel() for name in fitting) / max(1, sum(value.numel() for value in own.values()))
    found = (
        f"--pretrained {path}: {len(fitting)} of {len(own)} weights are the model's, {100 * share:.0f} % of its numbers"
    )
    if share < _LEAST_FITTING:
        raise CheckpointError(
            f"{found}; expected half at least: give the settings of the model that it was trained with, which its "
            "run.yaml has"
        )
    notices = [notice for each in (checkpoint, *before(checkpoint)) for notice in task.check_pretrained(each)]
    more = f" and {len(new) - _MOST_NAMED} more" if new[_MOST_NAMED:] else ""
    named = f"; new are {', '.join(map(legible, new[:_MOST_NAMED]))}{more}" if new else ""
    return fitting, [f"{found}{named}", *notices]


def before(checkpoint: Checkpoint) -> Iterator[Checkpoint]:
    """The checkpoints that this one, too, began with, as far as they are here: they have learnt as well."""
    paths: list[str] = []
    while (path := dict(checkpoint.get("settings", {})).get("pretrained")) and path not in paths:
        paths.append(path)
        try:
            checkpoint = load_source(Path(path))
        except CheckpointError:
            log.warning(f"note: {path}, whose weights it began with, is not here: what that had learnt is not checked")
            return
        yield checkpoint


def _fits(weight: Tensor | None, own: Tensor) -> bool:
    return (
        isinstance(weight, Tensor)
        and weight.shape == own.shape
        and weight.is_floating_point() == own.is_floating_point()
        and weight.layout == torch.strided
    )
