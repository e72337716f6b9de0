"""Whatever is typed or stands in a recipe: settings that are what was written, or errors that name it."""

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ds_trainer.command_line import load_settings
from ds_trainer.settings import RunSettings, combined_settings
from ds_trainer.task import load_task_type

from .strategies import NUMBERS, TEXTS, VALUES, damaged, examples, told

FIELDS = {name: combined_settings(load_task_type(name).settings_type).model_fields for name in ("toy", "sign")}
FLAGS = sorted({f"--{name}" for fields in FIELDS.values() for name in fields})
SWITCHES = ["--no-dry_run", "--dry_run=yes", "--deepspeed", "--local_rank=0", "--", "-x", "-h=1", "--no-seed", "--see"]
NUMERALS = NUMBERS.map(lambda number: str(number) if abs(number) < 1e300 else "1e999")
RECIPE = Path(__file__).parents[2] / "ds_configs" / "recipes" / "fingerspelling.yaml"


def load(argv: list[str]) -> RunSettings | None:
    if any(argument in ("-h", "--help") for argument in argv):
        return None  # which prints, and ends the process with status 0
    return told(lambda: load_settings(argv, load_task_type))


@examples(120)
@given(
    st.lists(
        st.sampled_from(FLAGS + SWITCHES) | TEXTS | NUMERALS | st.builds("{}={}".format, st.sampled_from(FLAGS), TEXTS)
    )
)
def test_any_command_line(argv: list[str]) -> None:
    load(argv)


@examples(120)
@given(st.data(), st.sampled_from(sorted(FIELDS)))
def test_a_flag_that_is_taken_has_its_value(data: st.DataObject, task: str) -> None:
    name = data.draw(st.sampled_from(sorted(FIELDS[task].keys() - {"task", "config", "dry_run", "verbose"})))
    text = data.draw(NUMERALS | TEXTS)
    given_data = [] if name == "data" else ["--data", "clips"] if task == "sign" else []
    settings = load(["--deepspeed_config", "engine.json", "--task", task, *given_data, f"--{name}={text}"])
    if settings is not None:
        assert _is_what_was_written(getattr(settings, name), text)


def _is_what_was_written(value: Any, text: str) -> bool:
    if isinstance(value, tuple):
        return all(part in text for part in value)
    if isinstance(value, int):
        return value == Decimal(text)
    if isinstance(value, float):
        return value == float(text) and math.isfinite(value)
    if isinstance(value, Path):
        return value == Path(text)
    return value == text or (value is None and text in ("~", "null", "Null", "NULL"))


# What YAML is made of, and what settings are.
WORDS = (
    *(
        "seed",
        "task",
        "toy",
        "jitter",
        "runs_dir",
        "config",
        "dry_run",
        "1",
        "0",
        "3.5",
        "1e-1",
        "010",
        "1:30",
        "yes",
        "~",
    ),
    *(
        "2001-01-01",
        ".inf",
        "é",
        ": ",
        ":",
        "- ",
        "? ",
        ", ",
        "[",
        "]",
        "{",
        "}",
        "'",
        '"',
        "|\n",
        ">\n",
        "\t",
        "# ",
        "=",
    ),
    *(
        "&a ",
        "*a",
        "<<",
        "!!int ",
        "!!binary ",
        "!!python/name:os.system ",
        "! ",
        "%YAML 1.1\n",
        "---\n",
        "...\n",
        "\n",
    ),
    *("\n  ", "\\ud800", "\\x00", "\x00", "\ufeff", "\x85", "\u2028"),
)


@examples(200)
@given(text=st.lists(st.sampled_from(WORDS), max_size=25).map("".join) | st.text(max_size=100))
def test_any_yaml_as_a_recipe(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    raw = text.encode("utf-8", errors="surrogatepass")
    _try_recipe(tmp_path_factory.getbasetemp() / "recipe.yaml", raw)


@examples(100)
@given(raw=damaged(RECIPE.read_bytes()) | st.binary(max_size=100))
def test_damaged_recipe(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    _try_recipe(tmp_path_factory.getbasetemp() / "recipe.yaml", raw)


def _try_recipe(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    settings = load(["--deepspeed_config", "engine.json", "--config", str(path)])
    if settings is None:
        return
    # What is accepted is what any other reader of YAML finds there, but for what YAML 1.1 makes of unquoted words.
    for name, value in (yaml.safe_load(raw) or {}).items():
        if name != "deepspeed_config":
            found = getattr(settings, name)
            assert _plain(found) == _plain(value) or isinstance(found, str | Path | float), (name, found, value)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


@examples(120)
@given(values=st.dictionaries(st.sampled_from(sorted(FIELDS["toy"])), VALUES, max_size=3))
def test_a_recipe_that_is_taken_has_its_values(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    settings = load(["--deepspeed_config", "engine.json", "--task", "toy", "--config", str(path)])
    if settings is not None:
        for name in values.keys() - {"deepspeed_config", "task"}:
            assert _plain(getattr(settings, name)) == values[name]
