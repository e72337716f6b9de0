"""The DeepSpeed JSON: read strictly, checked before DeepSpeed sees it, completed with what DeepSpeed would assume.

DeepSpeed reads it as hjson and ignores much of what it does not know, so that a typo trains with a default (seen in
0.19.8). Here every problem is told at once, each with its remedy.
"""

import copy
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ds_trainer.engine.config_keys import OPTIMIZER_PARAMS, REFUSED, AdamParams, EngineKeys
from ds_trainer.engine.config_rules import RULES, Place, adam_problems, last_word, sgd_problems
from ds_trainer.engine.skipping import skips_on_device
from ds_trainer.errors import SettingsError
from ds_trainer.problems import impossible, missing_file, problems_of, reason_of, shortened, shown
from ds_trainer.recipe import RECIPE_SUFFIXES
from ds_trainer.text_file import read_text, shipped

_MAX_DEPTH = 16


def load_engine_config(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, taken literally: no comments, no trailing commas, no key twice.

    Raises:
        SettingsError: the file is missing, or is not one JSON object.
    """
    problems: list[str] = []

    def object_of(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        counts = Counter(key for key, _ in pairs)
        twice = sorted(key for key, count in counts.items() if count > 1)
        problems.extend(f"{path}: key {shown(key)} stands more than once in an object; keep one" for key in twice)
        return dict(pairs)

    def refuse_constant(word: str) -> None:
        problems.append(f"{path}: found {word}, which is not JSON; write a finite number")

    text = _read_text(path)
    try:
        config = json.loads(text, object_pairs_hook=object_of, parse_constant=refuse_constant)
    except json.JSONDecodeError as error:
        raise SettingsError(_not_json(path, text, error)) from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"{path}: found a number of thousands of digits or a thousand brackets ({reason_of(error)})"
        ) from error
    if not isinstance(config, dict):
        problems.append(f"{path}: found {type(config).__name__}; expected a JSON object: {{...}}")
    problems += [f"{path}: {problem}" for problem in _unusable(config)]
    if problems:
        raise SettingsError(shortened(problems))
    return dict(config)


def _unusable(value: Any, depth: int = 0) -> Iterator[str]:
    """What no engine config can hold, wherever it stands."""
    if depth > _MAX_DEPTH:
        yield f"found more than {_MAX_DEPTH} brackets within each other; an engine config has three"
    elif isinstance(value, dict | list):
        for part in value if isinstance(value, list) else (*value, *value.values()):
            yield from _unusable(part, depth + 1)
    elif (problem := impossible(value)) is not None:
        yield problem


def _read_text(path: Path) -> str:
    try:
        return read_text(shipped(path))
    except FileNotFoundError as error:
        raise SettingsError(missing_file(path, "engine config", ".json")) from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: cannot be read as text ({reason_of(error)}); expected a JSON file") from error


def _not_json(path: Path, text: str, error: json.JSONDecodeError) -> str:
    if path.suffix in RECIPE_SUFFIXES:
        return f"{path}: found YAML, expected the JSON of an engine config; give a recipe with --config"
    return f"{path}:{error.lineno}:{error.colno}: not JSON: {_json_remedy(text, error)}"


def _json_remedy(text: str, error: json.JSONDecodeError) -> str:
    """What stands where the parser stopped, named as what people write who think of another format."""
    if text.startswith("\ufeff"):
        return "found a byte order mark; save the file as UTF-8 without one"
    before, rest = text[: error.pos].rstrip(), text[error.pos :].lstrip()
    if not text.strip():
        return "the file is empty"
    if rest.startswith(("//", "/*", "#")):
        return "found a comment; remove it, and say why in a README"
    after = rest.removeprefix(",").lstrip()  # Python 3.13 stops at the comma, 3.11 behind it
    if after.startswith(("}", "]")) and "," in (before[-1:], rest[:1]):
        return "found a comma after the last entry; remove it"
    if re.match(r"[A-Za-z_']", rest):
        return f"found {shown(rest.split()[0])}; keys and texts stand in double quotes"
    if "delimiter" in error.msg and rest.startswith(('"', "{", "[")):
        return "a comma is missing before this"
    return f"{error.msg[0].lower()}{error.msg[1:]}"


def check_engine_config(
    config: dict[str, Any], world_size: int, device_type: str, source: str = "engine config"
) -> list[str]:
    """Every problem of `config`, one line each: unknown keys, wrong types, and keys that contradict one another.

    Args:
        device_type: as in `torch.device.type`.
        source: the file that the lines begin with.
    """
    error, known, faulty = _validation(config, EngineKeys)
    problems = problems_of(error, EngineKeys, refused=REFUSED) if error is not None else []
    problems += _params_problems(known)
    keys = EngineKeys.model_validate_json(json.dumps({key: known[key] for key in known if key not in faulty}))
    for rule, reads in RULES:
        if not faulty & reads:
            problems += rule(keys, Place(world_size, device_type))
    if not problems:
        problems = last_word({**config, **_batch_sizes(config, world_size)})
    return [f"{source}: {problem}" for problem in problems]


def _validation(
    config: dict[str, Any], model: type[BaseModel]
) -> tuple[ValidationError | None, dict[str, Any], set[str]]:
    """What is wrong with `config`; the config without its unknown keys; the top-level keys that hold a wrong value."""
    try:
        # As JSON, because strict Python input would ask for enum members and paths instead of their texts.
        model.model_validate_json(json.dumps(config))
        return None, config, set()
    except ValidationError as error:
        known, faulty = copy.deepcopy(config), set()
        for details in error.errors():
            if details["type"] == "extra_forbidden":
                _remove(known, details["loc"])
            else:
                faulty.add(str(details["loc"][0]))
        return error, known, faulty


def _remove(config: dict[str, Any], path: Sequence[int | str]) -> None:
    block: Any = config
    for key in path[:-1]:
        block = block[key]
    del block[path[-1]]


def _params_problems(config: dict[str, Any]) -> list[str]:
    """The problems of `optimizer.params`, whose keys depend on the type of the optimizer."""
    optimizer: Any = config.get("optimizer")
    if not isinstance(optimizer, dict) or not isinstance(optimizer.get("params"), dict):
        return []
    model = OPTIMIZER_PARAMS.get(str(optimizer.get("type")))
    if model is None:
        return []
    prefix = "optimizer.params."
    error, _, _ = _validation(optimizer["params"], model)
    if error is not None:
        refused = {path.removeprefix(prefix): remedy for path, remedy in REFUSED.items() if path.startswith(prefix)}
        return [prefix + problem for problem in problems_of(error, model, refused=refused)]
    params = model.model_validate_json(json.dumps(optimizer["params"]))
    own = adam_problems(optimizer["type"], params) if isinstance(params, AdamParams) else sgd_problems(params)
    return list(own) + ([f"{prefix}fused and foreach: both true; keep one"] if params.fused and params.foreach else [])


def resolve_engine_config(
    config: dict[str, Any],
    world_size: int,
    device_type: str,
    learning_rate_scale: float = 1.0,
    source: str = "engine config",
) -> dict[str, Any]:
    """The complete config, for DeepSpeed and for the run directory: nothing that decides a result is left to a default.

    Defaults change between versions (`gradient_clipping` became 1.0) and between implementations (the weight decay of
    AdamW is 0.01 in torch and 0 in DeepSpeed).

    Raises:
        SettingsError: with every problem of `config`.
    """
    problems = check_engine_config(config, world_size, device_type, source)
    if problems:
        raise SettingsError(problems)
    resolved = copy.deepcopy(config)
    resolved.update(_batch_sizes(config, world_size))
    resolved.setdefault("gradient_clipping", 1.0)
    resolved["managed_gradient_accumulation"] = False
    # On by default, DeepSpeed's throughput timer waits for the device twice a step.
    resolved.setdefault("timers", {}).setdefault("throughput", {"enabled": False})
    if resolved.get("torch_autocast", {}).get("enabled"):
        resolved["torch_autocast"].setdefault("dtype", "bfloat16")
    zero = resolved.setdefault("zero_optimization", {})
    zero.setdefault("stage", 0)
    for name in ("reduce_bucket_size", "allgather_bucket_size"):
        zero.setdefault(name, 20_000_000)  # DeepSpeed's 5e8 is a buffer of 1 GB in bf16
    _resolve_optimizer(resolved["optimizer"], learning_rate_scale)
    if resolved.get("bf16", {}).get("enabled"):
        # DeepSpeed's own check is more than half of the operations of a step.
        resolved["bf16"].setdefault("check_grad_overflow", not skips_on_device(resolved["optimizer"], zero))
    return resolved


def _batch_sizes(config: dict[str, Any], world_size: int) -> dict[str, int]:
    train: Any = config.get("train_batch_size")
    micro: Any = config.get("train_micro_batch_size_per_gpu")
    accumulation: Any = config.get("gradient_accumulation_steps")
    if micro is None:
        micro = train // (accumulation * world_size)
    elif accumulation is None:
        accumulation = 1 if train is None else train // (micro * world_size)
    return {
        "train_batch_size": micro * accumulation * world_size,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulation,
    }


def _resolve_optimizer(optimizer: dict[str, Any], learning_rate_scale: float) -> None:
    params = optimizer["params"]
    params["lr"] *= learning_rate_scale
    if optimizer["type"] == "SGD":
        params.setdefault("weight_decay", 0.0)
    else:
        params.setdefault("betas", [0.9, 0.999])
        params.setdefault("eps", 1e-8)
        # Without it DeepSpeed compiles its own Adam first: two minutes on a CPU, nvcc on a GPU.
        params.setdefault("torch_adam", True)
        is_decoupled = params.setdefault("adam_w_mode", optimizer["type"] == "AdamW")
        params.setdefault("weight_decay", 0.01 if is_decoupled else 0.0)
    if params.get("torch_adam", True) and "foreach" not in params:
        params.setdefault("fused", True)
