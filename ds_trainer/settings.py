"""Run settings: one typed object from flags and a YAML recipe, with all problems reported at once.

What the engine does (precision, ZeRO, batch sizes, optimizer) has its home in the DeepSpeed JSON and is not repeated
here. A task brings its own settings class; the object that a run gets inherits from both, so each part reads only its
own.
"""

import argparse
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from ds_trainer.errors import SettingsError
from ds_trainer.problems import nearest_name, problems_of


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
        None, "what to train", "a recipe (YAML) that gives any of these settings by name; flags win", is_identity=False
    )
    task: str = setting(
        "sign", "what to train", "a task of ds_trainer.tasks, or your own as module:Class", min_length=1
    )

    num_epochs: int = setting(50, "training", "passes over the training clips", is_identity=False, ge=1)
    seed: int = setting(0, "training", "decides weights, order, augmentation and dropout", ge=0)
    plateau_factor: float = setting(
        0.2, "training", "what the learning rate is multiplied by when the validation loss stops improving", gt=0, lt=1
    )
    plateau_patience: int = setting(3, "training", "epochs without improvement before that", ge=0)
    scale_learning_rate: Literal["none", "sqrt", "linear"] = setting(
        "none", "training", "how the learning rate grows with the world size: none, sqrt or linear"
    )
    early_stopping_epochs: int = setting(
        0, "training", "stop after so many epochs without a better validation loss; 0 never", is_identity=False, ge=0
    )

    runs_dir: Path = setting(Path("runs"), "the run", "where run directories are made", is_identity=False)
    resume: str = setting(
        "never",
        "the run",
        "auto continues the newest unfinished run of the same settings or starts one, must fails if there is none, "
        "never starts afresh, a path continues that run directory",
        is_identity=False,
    )
    record_every_steps: int = setting(
        20,
        "the run",
        "steps between two lines of metrics.jsonl; each waits for the device once",
        is_identity=False,
        ge=1,
    )
    stall_timeout_s: float = setting(
        600.0, "the run", "seconds after which ranks give up waiting for one that is gone", is_identity=False, gt=0
    )
    dry_run: bool = setting(False, "the run", "print what would be trained, take one step and stop", is_identity=False)
    verbose: bool = setting(False, "the run", "show DeepSpeed's own log", is_identity=False)


def combined_settings(task_settings: type[TaskSettings]) -> type[RunSettings]:
    """A class whose objects are both `RunSettings` and `task_settings`."""
    bases: Any = (task_settings, RunSettings)  # pydantic's own type asks for subclasses of the first
    model: type[RunSettings] = create_model("Settings", __base__=bases)
    return model


def identity(settings: RunSettings) -> dict[str, Any]:
    """The settings that make this run what it is, as plain JSON values."""
    values = to_jsonable_python(settings)
    return {name: values[name] for name, field in type(settings).model_fields.items() if _extra(field)["is_identity"]}


class SettingsOwner(Protocol):
    """What a task says of settings."""

    settings_type: ClassVar[type[TaskSettings]]

    @classmethod
    def recipe_for(cls, flags: Mapping[str, str]) -> Path | None: ...


def load_settings(argv: Sequence[str], load_owner: Callable[[str], type[SettingsOwner]]) -> RunSettings:
    """The settings that the flags `argv` and a recipe give together.

    The recipe is the one that `--config` names, or else the one that the task has for these flags.

    Args:
        load_owner: name of a task -> the task; may raise `SettingsError`.

    Raises:
        SettingsError: with every unknown name, wrong type and impossible value.
    """
    first_look = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first_look.add_argument("--task", nargs="?")
    first_look.add_argument("--config", nargs="?")
    known, _ = first_look.parse_known_args(argv)
    recipe = load_recipe(Path(known.config)) if known.config else {}
    task_name = known.task or recipe.get("task") or RunSettings.model_fields["task"].default
    owner = load_owner(str(task_name))
    model = combined_settings(owner.settings_type)
    flags, problems = _read_flags(argv, model)
    recipe_path = known.config
    if recipe_path is None and (default_recipe := owner.recipe_for(flags)) is not None:
        recipe, recipe_path = load_recipe(default_recipe), str(default_recipe)
        flags["config"] = recipe_path
    if "config" in recipe:
        problems.append(f"{recipe_path}: config: a recipe cannot name another recipe; write its settings here")
    origins = {name: f"{recipe_path}: " for name in recipe if name not in flags}
    return _validated({**recipe, **flags}, model, problems, origins)


def load_recipe(path: Path) -> dict[str, Any]:
    """The settings that a YAML recipe gives, unchecked.

    Raises:
        SettingsError: the file is missing, is not YAML, or is not a mapping of names to values.
    """
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read ({error}); give --config the path of a YAML file") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    if recipe is None:
        return {}
    if not isinstance(recipe, dict) or not all(isinstance(name, str) for name in recipe):
        raise SettingsError(f"{path}: expected lines of the form 'name: value', found {type(recipe).__name__}")
    return recipe


def build_parser(model: type[RunSettings]) -> argparse.ArgumentParser:
    """The flags of `model`, grouped for `--help`. Their values stay strings: types are checked with the recipe's."""
    parser = argparse.ArgumentParser(
        prog="launch/train.py",
        usage="deepspeed %(prog)s --deepspeed_config PATH [--name VALUE ...]",
        description="Train a recogniser with DeepSpeed. Start with `deepspeed`, `torchrun`, or plain `python`.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    groups: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        title = _extra(field)["group"]
        group = groups.setdefault(title, parser.add_argument_group(title))
        if field.annotation is bool:
            group.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=_help(field))
        else:
            group.add_argument(f"--{name}", nargs="?", metavar=_metavar(field), help=_help(field))
    # The DeepSpeed launcher adds the first to each rank's command line; the second is in every DeepSpeed tutorial.
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)
    parser.add_argument("--deepspeed", action="store_true", help=argparse.SUPPRESS)
    return parser


def _extra(field: FieldInfo) -> Mapping[str, Any]:
    extra = field.json_schema_extra
    return extra if isinstance(extra, dict) else {"group": "task", "is_identity": True}


def _help(field: FieldInfo) -> str:
    if field.is_required():
        return f"{field.description} (required)".replace("%", "%%")
    words = {"None": "none", "True": "yes", "False": "no", "()": "all"}
    return f"{field.description} (default: {words.get(str(field.default), field.default)})".replace("%", "%%")


def _metavar(field: FieldInfo) -> str:
    wanted = typing.get_args(field.annotation) or (field.annotation,)
    if isinstance(wanted[0], str):
        return "{" + ",".join(wanted) + "}"
    names = {int: "N", float: "X", Path: "PATH"}
    return names.get(wanted[0], "NAME")


class _HelpFormatter(argparse.HelpFormatter):
    """Shows VALUE, not [VALUE]: a flag may lack its value only so that this is reported with all other problems."""

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return str(action.metavar) if action.nargs == "?" else super()._format_args(action, default_metavar)


def _read_flags(argv: Sequence[str], model: type[RunSettings]) -> tuple[dict[str, Any], list[str]]:
    """The values that the flags give, still unchecked, and a problem for each argument that is no flag."""
    known, unknown = build_parser(model).parse_known_args(argv)
    names = [f"--{name}" for name in model.model_fields]
    problems = []
    is_value_of_unknown = False
    for argument in unknown:
        if argument.startswith("--"):
            name = argument.split("=")[0]
            problems.append(f"{name}: unknown flag; {nearest_name(name, names)}")
        elif not is_value_of_unknown:
            problems.append(f"{argument}: unexpected argument; every setting is given as --name VALUE")
        is_value_of_unknown = argument.startswith("--") and "=" not in argument
    given = {name: text for name, text in vars(known).items() if name in model.model_fields}
    problems += [f"--{name}: found no value, expected one behind it" for name, text in given.items() if text is None]
    flags = {name: _value_of_flag(text, model.model_fields[name]) for name, text in given.items() if text is not None}
    return flags, problems


def _value_of_flag(text: str | bool, field: FieldInfo) -> Any:
    """`text` as the recipe would give it: a number where one is wanted, so that one strict check serves both."""
    wanted = typing.get_args(field.annotation) or (field.annotation,)
    if isinstance(text, str) and (int in wanted or float in wanted):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _validated(
    values: Mapping[str, Any], model: type[RunSettings], problems: Sequence[str], origins: Mapping[str, str]
) -> RunSettings:
    """Validate strictly: in a recipe, a number in quotes is not a number and `yes` is not 1."""
    try:
        settings = model.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        lines = problems_of(error, model)
        names = [str(details["loc"][0]) if details["loc"] else "" for details in error.errors()]
        found = [origins.get(name, "--" if name else "") + line for name, line in zip(names, lines, strict=True)]
        raise SettingsError([*problems, *found]) from error
    if problems:
        raise SettingsError(problems)
    return settings
