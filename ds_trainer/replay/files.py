"""Reads what a run saved of a bad batch: `batch.json`, `weights.pth`, and what the run's environment was.

The folder may have been copied, cut short or edited: everything is checked before anything is built from it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import nn

from ds_trainer.checkpoint import load_checkpoint, load_model, task_type_of
from ds_trainer.errors import CheckpointError
from ds_trainer.problems import MAX_INT, problems_of
from ds_trainer.settings import RunSettings, combined_settings
from ds_trainer.task import Task
from ds_trainer.text_file import read_text

Model = TypeVar("Model", bound=BaseModel)

BATCH_FILE, WEIGHTS_FILE = "batch.json", "weights.pth"

_MAX_BATCH_BYTES = 2**26
"""The names of the clips of a step over a thousand ranks."""

_Count = Annotated[int, Field(ge=0, le=MAX_INT)]
_Positive = Annotated[int, Field(ge=1, le=MAX_INT)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class SavedMicroStep(_Strict):
    """What one rank passed at once; as `batches.MicroStep` and `batches.Batch` say."""

    rank: _Count
    number: _Count
    indices: tuple[_Count, ...]
    num_real: _Positive
    names: tuple[str, ...]
    dropout_seed: _Count
    share: float = Field(gt=1 / MAX_INT)
    loss: float | None
    loss_text: str

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        if not len(self.names) == self.num_real <= len(self.indices):
            counts = f"{len(self.names)} names, num_real {self.num_real}, {len(self.indices)} indices"
            raise ValueError(f"found {counts}; expected as many names as num_real, and no fewer indices")
        return self


class SavedStep(_Strict):
    """A step that was skipped. Epochs count from 0, steps from 1."""

    step: _Positive
    epoch: _Count
    noticed_after_step: _Positive
    seed: _Count
    world_size: _Positive
    num_updates_since: _Count
    micro_steps: tuple[SavedMicroStep, ...]

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if not self.micro_steps:
            raise ValueError("micro_steps: found none, expected at least one")
        return self

    @property
    def suspects(self) -> tuple[SavedMicroStep, ...]:
        """The micro-steps whose loss was not finite; all, where each was."""
        bad = tuple(micro_step for micro_step in self.micro_steps if micro_step.loss is None)
        return bad or self.micro_steps


def load_saved_step(folder: Path) -> SavedStep:
    """The step whose bad batch is in `folder`.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = folder / BATCH_FILE
    try:
        text = read_text(path, _MAX_BATCH_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        found = f"no bad batch (no {BATCH_FILE})" if folder.exists() else "missing"
        raise CheckpointError(f"{folder}: {found}; {_nearby(folder)}") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); expected the text that training wrote") from error
    try:
        return SavedStep.model_validate_json(text)
    except ValidationError as error:
        raise CheckpointError([f"{path}: damaged: {problem}" for problem in problems_of(error, SavedStep)]) from error


def _nearby(folder: Path) -> str:
    """Where bad batches are, if the path is of something near them."""
    for start, pattern in (
        (folder, "step_*"), (folder, "bad_batches/step_*"), (folder, "*/bad_batches/step_*"),
        (folder.parent, "."), (folder.parent, "step_*"),
    ):  # fmt: skip
        found = sorted(path.parent for path in start.glob(f"{pattern}/{BATCH_FILE}"))
        if found:
            return "there is " + " ".join(map(str, found[:3])) + (" ..." if len(found) > 3 else "")
    return "expected a folder such as RUN/bad_batches/step_00000123"


class _Switch(BaseModel):
    enabled: bool = False


class _Autocast(_Switch):
    dtype: Literal["bfloat16"] = "bfloat16"


class _Zero(BaseModel):
    stage: int = 0


class _DataTypes(BaseModel):
    buffer_dtype: str | None = Field(default=None, pattern="^(fp32|fp16|bf16)$")


class EnginePrecision(BaseModel):
    """What an engine config says of precision; the rest of it is not needed here."""

    bf16: _Switch = _Switch()
    fp16: _Switch = _Switch()
    torch_autocast: _Autocast = _Autocast()
    zero_optimization: _Zero = _Zero()
    data_types: _DataTypes = _DataTypes()


@dataclass(frozen=True)
class SavedModel:
    """What was trained, and with what; the weights are those of when the bad batch was noticed."""

    task_type: type[Task]
    settings: RunSettings
    engine_config: Mapping[str, Any]
    checkpoint: Mapping[str, Any]

    def build(self) -> nn.Module:
        """The model in float32 on the CPU, in training mode.

        Raises:
            CheckpointError: the weights are not those of the model that the file describes.
        """
        return load_model(self.checkpoint).train()


def load_saved_model(folder: Path, own_task: str | None = None) -> SavedModel:
    """The weights beside the bad batch in `folder`, with the settings of the run.

    Args:
        own_task: the `module:Class` that may be imported. Nothing is imported only because the file names it.

    Raises:
        CheckpointError: the file is missing or damaged, or of another task.
        SettingsError: the task is not here.
    """
    path = folder / WEIGHTS_FILE
    if not path.exists():
        raise CheckpointError(f"{path}: no such file; it is written with {BATCH_FILE}, copy both")
    checkpoint = load_checkpoint(path)
    _validated(EnginePrecision, checkpoint["engine_config"], f"{path}: engine_config")
    task_type = task_type_of(checkpoint, own_task, path)
    settings = _validated(combined_settings(task_type.settings_type), checkpoint["settings"], f"{path}: settings")
    return SavedModel(task_type, settings, checkpoint["engine_config"], checkpoint)


def _validated(model: type[Model], values: Mapping[str, Any], source: str) -> Model:
    try:
        return model.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise CheckpointError([f"{source}: {problem}" for problem in problems_of(error, model)]) from error
    except (TypeError, ValueError, RecursionError) as error:  # a tensor, say
        raise CheckpointError(f"{source}: found what is no plain value ({error}); the file is damaged") from error
