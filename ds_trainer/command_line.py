"""From a command line and a YAML recipe to run settings, with all problems reported at once."""

import argparse
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ds_trainer.errors import SettingsError
from ds_trainer.problems import nearest_name, problems_of
from ds_trainer.settings import RunSettings, TaskSettings, combined_settings, extra_of


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
        title = extra_of(field)["group"]
        group = groups.setdefault(title, parser.add_argument_group(title))
        if field.annotation is bool:
            group.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=_help(field))
        else:
            group.add_argument(f"--{name}", nargs="?", metavar=_metavar(field), help=_help(field))
    # The DeepSpeed launcher adds the first to each rank's command line; the second is in every DeepSpeed tutorial.
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)
    parser.add_argument("--deepspeed", action="store_true", help=argparse.SUPPRESS)
    return parser


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
