"""Turns what pydantic finds wrong into lines that name the key, the value, and the nearest known name."""

import difflib
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ds_trainer.text_file import is_plain, shipped

MAX_PROBLEMS = 20
"""Lines told of one file: a file of another kind, given by mistake, has thousands."""

MAX_INT = 2**63 - 1
"""The largest number that files of a run can hold."""

_MAX_SHOWN = 60
_KNOWN_NAMES = "known names: "
_MAX_REASON = 200


def nearest_name(name: str, known: Iterable[str]) -> str:
    """A remedy for an unknown `name`: the nearest known one and those about as near, or all when none is near."""
    names, name = sorted(known), name[:_MAX_SHOWN]
    nearness = {other: difflib.SequenceMatcher(None, other.lower(), name.lower()).ratio() for other in names}
    best = max(nearness.values(), default=0.0)
    if best >= 0.6:
        nearest = [repr(other) for other in names if nearness[other] >= best - 0.1]
        return f"did you mean {' or '.join(nearest)}?"
    return _KNOWN_NAMES + ", ".join(map(legible, names))


def told_once(problems: Sequence[str]) -> list[str]:
    """The same problems; a list of known names stands in the first that has it, and others say "as above"."""
    seen: set[str] = set()
    told = []
    for problem in problems:
        before, is_list, names = problem.partition(_KNOWN_NAMES)
        told.append(f"{before}{is_list}as above" if names in seen and is_list else problem)
        seen.add(names)
    return told


def missing_file(path: Path, kind: str, *suffixes: str) -> str:
    """What to tell of a file that is not there: the nearest beside it.

    Args:
        kind: what the file should be, for a folder that has none.
        suffixes: of such files.
    """
    siblings = [sibling.name for sibling in shipped(path.parent).glob("*") if sibling.suffix in suffixes]
    remedy = nearest_name(path.name, siblings) if siblings else f"{path.parent} holds no {kind}"
    return f"{path}: no such file; {remedy}"


def problems_of(error: ValidationError, model: type[BaseModel], refused: Mapping[str, str] | None = None) -> list[str]:
    """One line for each problem of `error`, in the order of its keys.

    Args:
        model: the model that was validated, from which nearest names are taken at any depth.
        refused: paths that are left out of `model` on purpose, each with its remedy.
    """
    errors = error.errors()
    lines = [_problem(details, model, refused or {}) for details in errors[:MAX_PROBLEMS]]
    return shortened(told_once(lines), len(errors) - len(lines))


def shortened(problems: Sequence[str], num_left_out: int = 0) -> list[str]:
    """The first problems, and how many more there are.

    Args:
        num_left_out: how many were left out already.
    """
    more = max(len(problems) - MAX_PROBLEMS, 0) + num_left_out
    return [*problems[:MAX_PROBLEMS], *([f"... and {more} more problems like these"] if more else [])]


def listed(names: Sequence[object]) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(str(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def shown(value: Any, max_length: int = _MAX_SHOWN) -> str:
    """`value` as a message shows it: in one line, cut short."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more than 4300 digits, or one list in another a thousand times
        return f"{type(value).__name__} too large to show"
    return text if len(text) <= max_length else text[: max_length - 3] + "..."


def impossible(value: Any) -> str | None:
    """Why no setting can have this single value, whatever its type."""
    if isinstance(value, str) and not is_plain(value):
        return f"found {shown(value)}; expected text without control characters"
    if isinstance(value, int) and abs(value) > MAX_INT:
        return f"found {shown(value)}; expected a number below 2**63"
    return None


def reason_of(error: BaseException) -> str:
    """What an error of another library says, as a message shows it; its type where it says nothing."""
    text = " ".join(str(error).split())[:_MAX_REASON] or type(error).__name__
    return text if is_plain(text) else shown(text, _MAX_REASON)


def legible(name: str, max_length: int = _MAX_SHOWN) -> str:
    """A name from a file or a command line as a message shows it: unquoted where it is plain and short."""
    return name if len(name) <= max_length and is_plain(name) else shown(name, max_length)


def _problem(details: ErrorDetails, model: type[BaseModel], refused: Mapping[str, str]) -> str:
    path = ".".join(legible(str(key)) for key in details["loc"])
    if details["type"] == "extra_forbidden":
        known = _fields(_model_at(model, details["loc"][:-1]))
        return f"{path}: {refused.get(path) or 'unknown name; ' + nearest_name(str(details['loc'][-1]), known)}"
    if details["type"] == "missing":
        field = _fields(_model_at(model, details["loc"][:-1])).get(str(details["loc"][-1]))
        return f"{path}: missing" + (
            f"; expected {field.description}" if field is not None and field.description else ""
        )
    message = details["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if not path:
        return message
    if details["type"] == "string_type" and isinstance(details["input"], int | float):  # what YAML makes of 1 and no
        message += "; put it in quotes"
    return f"{path}: found {shown(details['input'])}; {message}"


def _model_at(model: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel]:
    """The model that stands at `path` below `model`."""
    for key in path:
        field = _fields(model).get(str(key))
        nested = _nested_model(field.annotation) if field is not None else None
        if nested is not None:
            model = nested
    return model


def _fields(model: type[BaseModel]) -> Mapping[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _nested_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_nested_model(part) for part in typing.get_args(annotation))
    return next((model for model in found if model is not None), None)


def exact(text: str, max_length: int = _MAX_SHOWN) -> str:
    """A text from a file as a message shows it: whole, unless it could spoil the line."""
    return text if is_plain(text) else shown(text, max_length)
