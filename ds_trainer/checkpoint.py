"""Checkpoints: a `.pth` with a trained model and what it takes to use it, without DeepSpeed, without running code.

A checkpoint is a dictionary of plain values and tensors:

    format, task, description      which model; the task rebuilds it from the description
    state_dict                     its weights in float32
    settings, engine_config        what it was trained with
    epoch, step, metrics           where in the run it was written, and what validation said
    versions                       of Python and the packages that wrote it
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ds_trainer.errors import CheckpointError
from ds_trainer.files import write_atomically
from ds_trainer.task import load_task_type

FORMAT = "ds_trainer checkpoint 1"


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically; `content` is all but its format."""
    write_atomically(path, lambda file: torch.save({"format": FORMAT, **content}, file))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_best` wrote. No code that the file may carry is run.

    Raises:
        CheckpointError: the file is missing, damaged, or no checkpoint of this trainer.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; expected the best.pth of a run directory") from error
    except Exception as error:  # a damaged file fails in many ways, each with a type of its own
        reason = " ".join(str(error).split())[:120] or type(error).__name__  # an empty file: EOFError without a word
        raise CheckpointError(f"{path}: damaged, or no checkpoint of ds_trainer ({reason})") from error
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        found = checkpoint.get("format") if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise CheckpointError(f"{path}: found format {found!r}, expected {FORMAT!r}")
    return checkpoint


def load_model(checkpoint: Mapping[str, Any]) -> nn.Module:
    """The trained model of a checkpoint, in float32 on the CPU, in evaluation mode."""
    model = load_task_type(checkpoint["task"]).model_from(checkpoint["description"])
    model.load_state_dict(checkpoint["state_dict"])
    return model.eval()
