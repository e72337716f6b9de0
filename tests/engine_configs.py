"""Shipped engine configs, and changes of them."""

import copy
from pathlib import Path
from typing import Any

from ds_trainer.engine.config import load_engine_config

CONFIGS_DIR = Path(__file__).parents[1] / "ds_configs"
CONFIGS = {path.name: load_engine_config(path) for path in sorted(CONFIGS_DIR.glob("*.json"))}
REMOVED = object()


def changed(changes: dict[str, Any], name: str = "bf16.json") -> dict[str, Any]:
    """A shipped config with other values at dotted paths."""
    config = copy.deepcopy(CONFIGS[name])
    for path, value in changes.items():
        *parents, key = path.split(".")
        block = config
        for parent in parents:
            block = block.setdefault(parent, {})
        if value is REMOVED:
            del block[key]
        else:
            block[key] = value
    return config
