"""From a command line and a YAML recipe to run settings, with all problems reported at once."""

import argparse
import json
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Protocol

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ds_trainer.errors import SettingsError
from ds_trainer.problems import (
    MAX_PROBLEMS,
    impossible,
    legible,
    nearest_name,
    problems_of,
    shortened,
    shown,
    told_once,
)
from ds_trainer.recipe import UnquotedNumber, load_recipe, value_of
from ds_trainer.settings import RunSettings, TaskSettings, combined_settings, extra_of
from ds_trainer.text_file import is_plain


class SettingsOwner(Protocol):
    """What a task says of settings."""

    settings_type: ClassVar[type[TaskSettings]]

    @classmethod
    def recipe_for(cls, flags: Mapping[str, str]) -> Path | None: ...


def load_settings(
    argv: Sequence[str],
    load_owner: Callable[[str], type[SettingsOwner]],
    earlier: Mapping[str, Any] | None = None,
) -> RunSettings:
    """The settings that the flags `argv` and a recipe give together.

    The recipe is the one that `--config` names, or else the one that the task has for these flags.

    Args:
        load_owner: name of a task -> the task; may raise `SettingsError`.
        earlier: the settings of a run, such as a checkpoint has them, in place of a recipe.

    Raises:
        SettingsError: with every unknown name, wrong type and impossible value.
    """
    refuse_illegible(argv)  # told first: a file of such a name could not even be named in a message
    first_look = _Parser(add_help=False, allow_abbrev=False)
    first_look.add_argument("--task", nargs="?")
    first_look.add_argument("--config", nargs="?")
    known, _ = first_look.parse_known_args(argv)
    recipe = dict(earlier or {}) if known.config is None else load_recipe(Path(known.config))
    task_name = known.task or recipe.get("task") or RunSettings.model_fields["task"].default
    owner = load_owner(str(task_name))
    model = combined_settings(owner.settings_type)
    flags, problems = _read_flags(argv, model)
    recipe_path = known.config
    if recipe_path is None and earlier is None and (default_recipe := owner.recipe_for(flags)) is not None:
        recipe, recipe_path = load_recipe(default_recipe), str(default_recipe)
        flags["config"] = recipe_path
    source = recipe_path or "settings of the run"
    if "config" in recipe:
        problems.append(f"{source}: config: a recipe cannot name another recipe; write its settings here")
    origins = {name: f"{source}: " for name in recipe if name not in flags}
    values = {
        **{name: _value_in_recipe(value, model.model_fields.get(name)) for name, value in recipe.items()},
        **flags,
    }
    return _validated(values, model, problems, origins)


def refuse_illegible(arguments: Iterable[str]) -> None:
    """Refuse arguments that no message could show, and that no log in UTF-8 could hold."""
    illegible = [argument for argument in arguments if not is_plain(argument)]
    if illegible:
        encoding = sys.getfilesystemencoding()
        remedy = "" if encoding == "utf-8" else f"; it was read as {encoding}, the locale's: export PYTHONUTF8=1"
        lines = [f"found {shown(text)}; expected UTF-8 without control characters{remedy}" for text in illegible]
        raise SettingsError(shortened(lines))


def build_parser(model: type[RunSettings]) -> argparse.ArgumentParser:
    """The flags of `model`, grouped for `--help`. Their values stay strings: types are checked with the recipe's."""
    parser = _Parser(
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
    about = "" if field.description is None else f"{field.description} "  # of a plain field of an own task
    if field.is_required():
        return f"{about}(required)".replace("%", "%%")
    words = {"None": "none", "True": "yes", "False": "no", "": "none named"}
    default = ",".join(map(str, field.default)) if isinstance(field.default, tuple | list) else field.default
    return f"{about}(default: {words.get(str(default), default)})".replace("%", "%%")


def _metavar(field: FieldInfo) -> str:
    choices = [choice for choice in typing.get_args(field.annotation) if isinstance(choice, str)]
    if choices:
        return "{" + ",".join(choices) + "}"
    names = {int: "N", float: "X", Path: "PATH"}
    name = next((names[kind] for kind in names if kind in _kinds(field.annotation)), "NAME")
    return f"{name},..." if _is_list(field) else name


class _Parser(argparse.ArgumentParser):
    """Leaves it to us how the command ends, where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(message)


class _HelpFormatter(argparse.HelpFormatter):
    """Shows VALUE, not [VALUE]: a flag may lack its value only so that this is reported with all other problems."""

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return str(action.metavar) if action.nargs == "?" else super()._format_args(action, default_metavar)


def _read_flags(argv: Sequence[str], model: type[RunSettings]) -> tuple[dict[str, Any], list[str]]:
    """The values that the flags give, still unchecked, and a problem for each argument that is no flag."""
    argv, problems = _without_values_of_switches(argv, model)
    known, unknown = build_parser(model).parse_known_args(argv)
    names = [f"--{name}" for name in model.model_fields]
    is_value_of_unknown = False
    for argument in unknown[:MAX_PROBLEMS]:
        if argument.startswith("--"):
            name = argument.split("=")[0]
            problems.append(f"{legible(name)}: unknown flag; {nearest_name(name, names)}")
        elif not is_value_of_unknown:
            problems.append(f"{legible(argument)}: unexpected argument; every setting is given as --name VALUE")
        is_value_of_unknown = argument.startswith("--") and "=" not in argument
    if len(unknown) > MAX_PROBLEMS:
        problems.append(f"... and {len(unknown) - MAX_PROBLEMS} more words that no flag asks for")
    given = {name: text for name, text in vars(known).items() if name in model.model_fields}
    problems += [f"--{name}: found no value, expected one behind it" for name, text in given.items() if text is None]
    flags = {name: _value_of_flag(text, model.model_fields[name]) for name, text in given.items() if text is not None}
    return flags, problems


def _without_values_of_switches(argv: Sequence[str], model: type[RunSettings]) -> tuple[list[str], list[str]]:
    """`argv` without the likes of --dry_run=yes, and a problem for each."""
    switches = {name: name for name in ("--deepspeed", "--help")}
    for name, field in model.model_fields.items():
        if field.annotation is bool:
            switches |= dict.fromkeys((f"--{name}", f"--no-{name}"), f"--{name} or --no-{name}")
    kept, problems = [], []
    for argument in argv:
        name, is_given, text = argument.partition("=")
        if is_given and name in switches:
            problems.append(f"{name}: found {shown(text)} behind it, expected no value; write {switches[name]}")
        else:
            kept.append(argument)
    return kept, problems


def _value_of_flag(text: str | bool, field: FieldInfo) -> Any:
    """`text` as the recipe would give it: a number where one is wanted, so that one strict check serves both."""
    if isinstance(text, bool):
        return text
    if _is_list(field):
        return [_number_or_text(part.strip(), field) for part in text.split(",") if part.strip()]
    return _number_or_text(text, field)


def _number_or_text(text: str, field: FieldInfo) -> Any:
    return value_of(text) if _wants_number(field) else text


def _value_in_recipe(value: Any, field: FieldInfo | None) -> Any:
    if field is None or not _wants_number(field):
        return value
    if isinstance(value, list):
        return [_value_in_recipe(part, field) for part in value]
    return float(value) if isinstance(value, UnquotedNumber) else value


def _is_list(field: FieldInfo) -> bool:
    """Whether a setting has any number of values, which a flag gives with commas between them."""
    return bool(_kinds(field.annotation) & {list, tuple})


def _wants_number(field: FieldInfo) -> bool:
    return bool(_kinds(field.annotation) & {int, float})


def _kinds(annotation: Any) -> set[Any]:
    """The types in an annotation, at any depth: of `list[int] | None` list, int and None's."""
    inner = (_kinds(argument) for argument in typing.get_args(annotation))
    return {typing.get_origin(annotation) or annotation}.union(*inner)


def _validated(
    values: Mapping[str, Any], model: type[RunSettings], problems: Sequence[str], origins: Mapping[str, str]
) -> RunSettings:
    """Validate strictly: in a recipe, a number in quotes is not a number and `yes` is not 1."""
    unusable = {name: problem for name in values if (problem := _unusable(values[name], model.model_fields.get(name)))}
    told = [f"{origins.get(name, '--')}{legible(name)}: {problem}" for name, problem in unusable.items()]
    problems = [*problems, *told]
    try:
        usable = {name: value for name, value in values.items() if name not in unusable}
        settings = model.model_validate_json(json.dumps(usable), strict=True)
    except ValidationError as error:
        names = [str(details["loc"][0]) if details["loc"] else "" for details in error.errors()]
        for name, line in zip_longest(names[:MAX_PROBLEMS], problems_of(error, model), fillvalue=""):
            if name not in unusable:  # else it is missing only because it was left out above
                problems.append(origins.get(name, "--" if name else "") + line)
    if problems:
        raise SettingsError(told_once(problems))
    return settings


def _unusable(value: Any, field: FieldInfo | None) -> str | None:
    """Why no setting can have this value, whatever its type."""
    if isinstance(value, list | dict):
        parts = value if isinstance(value, list) else [*value, *value.values()]
        return next(filter(None, (_unusable(part, None) for part in parts)), None)
    if (problem := impossible(value)) is not None:
        return problem
    # A list of names may be empty; elsewhere nothing is mostly a variable that the shell did not know.
    if value == "" and field is not None and field.default != "" and not _is_list(field):
        return "found an empty text, expected a value; leave the setting out for its default"
    return None
