"""Run settings: what a run is, in one typed object, read by `command_line.py` from flags and a recipe.

What the engine does (precision, ZeRO, batch sizes, optimizer) has its home in the DeepSpeed JSON and is not repeated
here. A task brings its own settings class; the object that a run gets inherits from both, so each part reads only its
own.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from ds_trainer.errors import TaskError
from ds_trainer.problems import shown


def setting(default: Any, group: str, description: str, is_identity: bool = True, **constraints: Any) -> Any:
    """A field of a settings class.

    Args:
        group: the heading under which `--help` shows it.
        description: what it means, with its unit; the default is added.
        is_identity: whether a run with another value is another run, which `--resume auto` must not continue.
    """
    extra: JsonDict = {"group": group, "is_identity": is_identity}
    return Field(default, description=description, json_schema_extra=extra, **constraints)


def _split_at_commas(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value) if isinstance(value, list) else value


NameList = Annotated[tuple[str, ...], BeforeValidator(_split_at_commas)]
"""Names: a YAML list, or separated by commas."""


class TaskSettings(BaseModel):
    """Base of the settings that a task adds: its fields become flags and names of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RunSettings(BaseModel):
    """The settings that every task has."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    deepspeed_config: Path = setting(
        ...,
        "what to train",
        "the engine config (JSON): precision, ZeRO, batch sizes, optimizer; see ds_configs/README.md",
        is_identity=False,
    )
    config: Path | None = setting(
        None,
        "what to train",
        "a recipe (YAML) that gives any of these settings by name; flags win; without one, --data default has its own",
        is_identity=False,
    )
    task: str = setting(
        "sign", "what to train", "a task of ds_trainer.tasks, or your own as module:Class", min_length=1
    )
    pretrained: Path | None = setting(
        None, "what to train", "a run directory or .pth whose weights are the first ones, where names and shapes fit"
    )

    num_epochs: int = setting(
        50,
        "training",
        "epochs: each passes over the training clips once, or as often as --min_epoch_clips asks for",
        is_identity=False,
        ge=1,
    )
    min_epoch_clips: int = setting(
        0,
        "training",
        "clips that an epoch has at least: fewer are passed several times in it, each time augmented anew",
        ge=0,
    )
    seed: int = setting(0, "training", "decides weights, order, augmentation and dropout", ge=0)
    plateau_factor: float = setting(
        0.2, "training", "what the learning rate is multiplied by when the validation loss stops improving", gt=0, lt=1
    )
    plateau_patience: int = setting(
        3, "training", "epochs without improvement before that; as many as there are keep the learning rate", ge=0
    )
    warmup_epochs: float = setting(
        0.0,
        "training",
        "epochs over which the learning rate rises in a straight line, at the start",
        ge=0,
        le=1_000_000,
    )
    cooldown_epochs: float = setting(
        0.0,
        "training",
        "epochs over which the learning rate falls to 0 in a straight line, at the end",
        ge=0,
        le=1_000_000,
    )
    weight_average_decay: float = setting(
        0.0,
        "training",
        "of a moving average of the weights, which is validated and saved in their place: the fraction of it that a "
        "step leaves, such as 0.999, at first less: (1 + steps) / (10 + steps); 0 keeps none",
        ge=0,
        lt=1,
    )
    scale_learning_rate: Literal["none", "sqrt", "linear"] = setting(
        "none", "training", "how the learning rate grows with the world size: none, sqrt or linear"
    )
    model_selection: Literal["loss", "last"] = setting(
        "loss",
        "training",
        "which epoch's model best.pth is: loss, that of the lowest validation loss; last, the newest: where few clips "
        "validate, the lowest loss is mostly luck",
    )
    early_stopping_epochs: int = setting(
        0, "training", "stop after so many epochs without a better validation loss; 0 never", is_identity=False, ge=0
    )
    max_skipped_steps: int = setting(
        10, "training", "stop after so many steps in a row whose gradient was NaN or infinite", is_identity=False, ge=1
    )
    compile: bool = setting(
        False,
        "training",
        "compile the model by torch.compile, and on a GPU the preparation of clips: a minute or more before the first "
        "step, then fewer kernels; meant for GPUs, on a CPU it does not pay (docs/speed.md)",
        is_identity=False,
    )

    runs_dir: Path = setting(Path("runs"), "the run", "where run directories are made", is_identity=False)
    resume: str = setting(
        "never",
        "the run",
        "auto continues the unfinished run of the same settings that was saved last, or starts one, must fails if "
        "there is none, never starts afresh, a path continues that run directory",
        is_identity=False,
    )
    resume_every_steps: int = setting(
        0,
        "the run",
        "steps between resume points, beside those at the end of each epoch; 0 none",
        is_identity=False,
        ge=0,
    )
    resume_every_minutes: float = setting(
        10.0, "the run", "minutes between resume points within an epoch; 0 none", is_identity=False, ge=0
    )
    keep_resume_points: int = setting(1, "the run", "the newest resume points that are kept", is_identity=False, ge=1)
    stop_after_minutes: float = setting(
        0.0,
        "the run",
        "save and stop after so many minutes of training, before a time limit of the cluster does; 0 never",
        is_identity=False,
        ge=0,
    )
    record_every_steps: int = setting(
        20,
        "the run",
        "steps between two lines of metrics.jsonl; each waits for the device once",
        is_identity=False,
        ge=1,
    )
    expect_world_size: int = setting(
        0,
        "the run",
        "ranks that must take part, 0 for any; the launcher takes a wrong hostfile for one host, without a word",
        is_identity=False,
        ge=0,
    )
    stall_timeout_s: float = setting(
        120.0,
        "the run",
        "seconds for which a rank may be silent, or no rank take a step, until the run ends and says which rank it was",
        is_identity=False,
        gt=0,
        le=604_800,
    )
    start_timeout_s: float = setting(
        300.0,
        "the run",
        "seconds after which ranks that have started give up waiting for one that has not",
        is_identity=False,
        gt=0,
        le=604_800,
    )
    profile: bool = setting(
        False,
        "the run",
        "record a few steps of the first epoch: a trace, and a summary of where their time goes",
        is_identity=False,
    )
    dry_run: bool = setting(False, "the run", "print what would be trained, take one step and stop", is_identity=False)
    verbose: bool = setting(False, "the run", "show DeepSpeed's own log", is_identity=False)

    @model_validator(mode="after")
    def _can_stop_early(self) -> "RunSettings":
        if self.model_selection == "last" and self.early_stopping_epochs > 0:
            raise ValueError(
                f"early_stopping_epochs {self.early_stopping_epochs} waits for epochs that are not the best, and with "
                f"model_selection last each is; expected model_selection loss, or no early stopping"
            )
        return self


def combined_settings(task_settings: type[TaskSettings]) -> type[RunSettings]:
    """A class whose objects are both `RunSettings` and `task_settings`.

    Raises:
        TaskError: that is no such class, or has a name that every run has.
    """
    if not (isinstance(task_settings, type) and issubclass(task_settings, TaskSettings)):
        raise TaskError(f"the task's settings_type: found {shown(task_settings)}, expected a class of TaskSettings")
    taken = sorted(task_settings.model_fields.keys() & RunSettings.model_fields.keys())
    if taken:
        raise TaskError(f"the task's settings_type: {taken[0]} is a setting of every run; choose another name")
    bases: Any = (task_settings, RunSettings)  # pydantic's own type asks for subclasses of the first
    model: type[RunSettings] = create_model("Settings", __base__=bases)
    return model


def identity(settings: RunSettings) -> dict[str, Any]:
    """The settings that make this run what it is, as plain JSON values."""
    values = to_jsonable_python(settings)
    return {name: values[name] for name, field in type(settings).model_fields.items() if extra_of(field)["is_identity"]}


def extra_of(field: FieldInfo) -> Mapping[str, Any]:
    """What `setting` said of a field beyond its type: `group` and `is_identity`."""
    extra = field.json_schema_extra
    return extra if isinstance(extra, dict) else {"group": "task", "is_identity": True}
