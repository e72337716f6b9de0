"""Reads files of a run back. Its folder may be a copy, edited, or from elsewhere: none of them may hang who looks."""

import json
from pathlib import Path
from typing import Any

import yaml

from ds_trainer.problems import reason_of, shown
from ds_trainer.recipe import PlainLoader
from ds_trainer.text_file import read_text

_MAX_JSON_BYTES = 2**26
"""The results of a run by group, or its environment each time that it was continued."""


def read_json(path: Path) -> dict[str, Any]:
    """What `files.write_json` wrote.

    Raises:
        OSError: it is missing, or may not be read.
        ValueError: it is no JSON file, one that is nested a thousand times, or not of names with values.
    """
    try:
        return _named(json.loads(read_text(path, _MAX_JSON_BYTES)))
    except RecursionError as error:
        raise ValueError("lists within lists, a thousand times") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """What `files.write_yaml` wrote. A few aliases would stand for more than memory holds: it never writes them.

    Raises:
        OSError: it is missing, or may not be read.
        ValueError: it is no such file, or not of names with values.
    """
    text = read_text(path)
    try:
        return _named(yaml.load(text, PlainLoader))
    except Exception as error:  # what is tagged as a number or a date and is none fails in many ways
        raise ValueError(reason_of(error)) from error


def _named(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"found {shown(value)}, expected names with values")
    return value
