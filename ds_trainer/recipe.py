"""Reads a recipe: the part of YAML that settings need, so that nothing in it means something else than it seems to.

YAML 1.1 takes `010` as 8, `1:30` as 90 and a date as an object, and keeps the last of two equal names in silence. Here
they are text, text, text and an error. Anchors are refused: settings are flat, and a few nested ones fill any memory.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from ds_trainer.errors import SettingsError
from ds_trainer.problems import legible, missing_file, reason_of
from ds_trainer.text_file import read_text, shipped

MAX_RECIPE_BYTES = 2**17
"""PyYAML reads about as much in a second."""

RECIPE_SUFFIXES = (".yaml", ".yml")

_ENGINE_KEYS = {"train_micro_batch_size_per_gpu", "train_batch_size", "optimizer", "bf16", "fp16", "zero_optimization"}
"""Of which an engine config has several; `EngineKeys`, which has all, needs DeepSpeed."""

_MAX_DEPTH = 8


class UnquotedNumber(str):
    """A number with an exponent, such as 1e-1: for YAML 1.1 a text, for its writer a number where one is expected."""


def load_recipe(path: Path) -> dict[str, Any]:
    """The settings that a YAML recipe gives, unchecked: plain values, and `UnquotedNumber`s.

    Raises:
        SettingsError: the file is missing, is not YAML, gives a name twice, or is no mapping of names to values.
    """
    recipe = load_yaml(path, "--config")
    engine_keys = sorted(_ENGINE_KEYS & recipe.keys())
    if len(engine_keys) > 1:
        raise SettingsError(
            f"{path}: found {', '.join(engine_keys)}, expected the settings of a recipe; this is an engine config: "
            "give it with --deepspeed_config"
        )
    return recipe


def load_yaml(path: Path, flag: str) -> dict[str, Any]:
    """The same of any YAML file of names and values, which `flag` gives.

    Raises:
        SettingsError: the file is missing, is not YAML, gives a name twice, or is no mapping of names to values.
    """
    try:
        text = read_text(shipped(path), MAX_RECIPE_BYTES)
    except FileNotFoundError as error:
        raise SettingsError(f"{flag} {missing_file(path, 'YAML file', *RECIPE_SUFFIXES)}") from error
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{path}: cannot be read ({reason_of(error)}); give {flag} the path of a YAML file"
        ) from error
    try:
        loader = _Loader(text)
        try:
            recipe = loader.get_single_data()
        finally:
            loader.dispose()
    except _Refused as error:
        raise SettingsError(f"{path}:{error.line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: is not YAML: {reason_of(error)}") from error
    problems = [f"{path}:{problem}" for problem in loader.problems]
    if recipe is None:
        recipe = {}
    if not isinstance(recipe, dict) or not all(isinstance(name, str) for name in recipe):
        problems.append(f"{path}: expected lines of the form 'name: value', found {type(recipe).__name__}")
    if problems:
        raise SettingsError(problems)
    return dict(recipe)


class _Refused(yaml.MarkedYAMLError):
    """What YAML allows and a recipe does not."""

    def __init__(self, mark: yaml.Mark, problem: str):
        super().__init__(problem=problem, problem_mark=mark)
        self.line = mark.line + 1


class PlainLoader(yaml.SafeLoader):
    """Loads YAML without anchors, and of no more depth than settings have: no text becomes more than it is long."""

    def __init__(self, text: str):
        self._depth = 0
        super().__init__(text)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _Refused(
                event.start_mark, "found an anchor (&) or alias (*); write the value out, or put it in quotes"
            )
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _Refused(event.start_mark, "found lists within lists; settings are lines of the form 'name: value'")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Loader(PlainLoader):
    """Loads plain values alone.

    Attributes:
        problems: names that stand more than once, each with its line.
    """

    def __init__(self, text: str):
        self.problems: list[str] = []
        super().__init__(text)

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Hashable, Any]:
        first_lines: dict[str, int] = {}
        if not isinstance(node, yaml.MappingNode):  # tagged as a mapping
            raise _Refused(node.start_mark, "found a mapping (!!map) that is none; write 'name: value'")
        keys = [key for key, _ in node.value]
        for key in filter(lambda key: isinstance(key, yaml.ScalarNode), keys):
            line = key.start_mark.line + 1
            if key.value in first_lines:
                first = first_lines[key.value]
                self.problems.append(f"{line}: {legible(key.value)}: stands in line {first} already; keep one")
            first_lines.setdefault(key.value, line)
        # Not SafeConstructor's, which merges what stands under a name "<<".
        mapping: dict[Hashable, Any] = yaml.constructor.BaseConstructor.construct_mapping(self, node, deep=True)
        return mapping


def _bool(loader: _Loader, node: yaml.ScalarNode) -> bool:
    value = _BOOLS.get(loader.construct_scalar(node).lower())
    if value is None:
        raise _Refused(node.start_mark, f"found {legible(node.value)}, which is not true or false")
    return value


def _number(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    """What an unquoted number, or a text that is tagged as one, stands for."""
    try:
        return _read(loader.construct_scalar(node), node.tag)
    except ValueError as error:  # not a number, or one of more than 4300 digits
        raise _Refused(node.start_mark, f"found {legible(node.value)}, which is no number that can be read") from error


def _read(number: str, tag: str) -> int | float:
    return int(number) if tag == _INT else float(re.sub(r"\.(inf|nan)$", r"\1", number.lower()))


def value_of(text: str) -> Any:
    """What a recipe takes an unquoted `text` for where a number is wanted; itself, where it can read nothing there."""
    word = text.strip()
    tag = next((tag for tag, (form, _) in _FORMS.items() if word and re.fullmatch(form, word)), None)
    if tag in (_INT, _FLOAT, _EXPONENT):
        try:
            return _read(word, tag)
        except ValueError:  # one of more than 4300 digits
            return text
    return None if tag == _NULL else _BOOLS[word.lower()] if tag == _BOOL else text


_BOOLS = {"yes": True, "no": False, "true": True, "false": False, "on": True, "off": False}
_PREFIX = "tag:yaml.org,2002:"
_NULL, _BOOL, _INT, _FLOAT = (f"{_PREFIX}{kind}" for kind in ("null", "bool", "int", "float"))
_EXPONENT = "!exponent"
# What an unquoted word is, by its form and the characters that it may begin with.
_FORMS = {
    _NULL: (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    _BOOL: (r"(?i:yes|no|true|false|on|off)", list("yYnNtTfFoO")),
    _INT: (r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    _FLOAT: (r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|\.(inf|Inf|INF))|\.(nan|NaN|NAN)", list("-+.0123456789")),
    _EXPONENT: (r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+", list("-+.0123456789")),
}
_Loader.yaml_implicit_resolvers = {}
_Loader.yaml_constructors = {}
for _tag, (_form, _first) in _FORMS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_form})$"), _first)
_CONSTRUCTORS = {
    _NULL: lambda loader, node: None,
    _BOOL: _bool,
    _INT: _number,
    _FLOAT: _number,
    _EXPONENT: lambda loader, node: UnquotedNumber(loader.construct_scalar(node)),
    f"{_PREFIX}str": lambda loader, node: loader.construct_scalar(node),
    f"{_PREFIX}seq": lambda loader, node: loader.construct_sequence(node, deep=True),
    f"{_PREFIX}map": lambda loader, node: loader.construct_mapping(node),
    None: yaml.SafeLoader.construct_undefined,
}
for _name, _constructor in _CONSTRUCTORS.items():
    _Loader.add_constructor(_name, _constructor)
