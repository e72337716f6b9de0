"""Reads files of a run back. Its folder may be a copy, edited, or from elsewhere: none of them may hang who looks."""

import json
from pathlib import Path
from typing import Any

import yaml

from ds_trainer.problems import reason_of
from ds_trainer.recipe import PlainLoader
from ds_trainer.text_file import read_text

_MAX_JSON_BYTES = 2**26
"""The results of a run by group, or its environment each time that it was continued."""


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: it is missing, or may not be read.
        ValueError: it is no JSON file, or one that is nested a thousand times.
    """
    try:
        return json.loads(read_text(path, _MAX_JSON_BYTES))
    except RecursionError as error:
        raise ValueError("lists within lists, a thousand times") from error


def read_yaml(path: Path) -> Any:
    """What `files.write_yaml` wrote. A few aliases would stand for more than memory holds: it never writes them.

    Raises:
        OSError: it is missing, or may not be read.
        ValueError: it is no such file.
    """
    text = read_text(path)
    try:
        loader = PlainLoader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ValueError(reason_of(error)) from error
