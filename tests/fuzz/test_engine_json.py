"""Whatever stands in an engine config: resolved with every value kept, or told."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds_trainer.engine.config import load_engine_config, resolve_engine_config

from .strategies import damaged, examples, told, with_changes

CONFIGS = {path.name: path for path in sorted((Path(__file__).parents[2] / "ds_configs").glob("*.json"))}
ASSUMED_KEYS = {"managed_gradient_accumulation"}
"""The resolved config says otherwise than a config may: the trainer decides these itself, and refuses other values."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine") / "engine.json"


def check(path: Path, world_size: int, device_type: str) -> None:
    config = told(lambda: load_engine_config(path))
    if config is None:
        return
    resolved = told(lambda: resolve_engine_config(config, world_size, device_type))
    if resolved is not None:
        assert_keeps(resolved, config)
        assert resolve_engine_config(resolved, world_size, device_type) == resolved
        micro, accumulation = resolved["train_micro_batch_size_per_gpu"], resolved["gradient_accumulation_steps"]
        assert resolved["train_batch_size"] == micro * accumulation * world_size


def assert_keeps(resolved: dict[str, Any], config: dict[str, Any]) -> None:
    for key, value in config.items():
        if isinstance(value, dict):
            assert_keeps(resolved[key], value)
        else:
            assert resolved[key] == value or (value is None and key in resolved), key


PLACES = (st.integers(1, 3), st.sampled_from(["cpu", "cuda"]))


@examples(150)
@given(
    st.sampled_from(sorted(CONFIGS)).flatmap(lambda name: with_changes(json.loads(CONFIGS[name].read_text()))), *PLACES
)
def test_changed_config(path: Path, config: dict[str, Any], world_size: int, device_type: str) -> None:
    path.write_text(json.dumps(config))
    check(path, world_size, device_type)


@examples(120)
@given(st.sampled_from(sorted(CONFIGS)).flatmap(lambda name: damaged(CONFIGS[name].read_bytes())), *PLACES)
def test_damaged_file(path: Path, raw: bytes, world_size: int, device_type: str) -> None:
    path.write_bytes(raw)
    check(path, world_size, device_type)


LARGE = {
    "10 MB of one key": b'{"a": "' + b"x" * 10**7 + b'"}',
    "10 MB of spaces": b" " * 10**7,
    "10 MB of brackets": b"[" * 10**7,
    "many unknown keys": json.dumps({f"gradient_cliping_{n}": n for n in range(30_000)}).encode(),
    "many wrong values": json.dumps({"data_types": {"keep_in_fp32_modules": [1] * 100_000}}).encode(),
    "many equal keys": b"{" + b'"a": 1, "a": 2, ' * 30_000 + b'"b": 1}',
    "500 brackets": b'{"bf16": ' + b"[" * 500 + b"]" * 500 + b"}",
    "100,000 brackets": b'{"bf16": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number of 5000 digits": b'{"steps_per_print": ' + b"9" * 5000 + b"}",
    "a number of 400 digits": b'{"gradient_clipping": ' + b"9" * 400 + b"}",
    "a lone surrogate": b'{"bf16": "\\ud800"}',
    "a byte order mark": b'\xef\xbb\xbf{"bf16": {}}',
    "UTF-16": '{"bf16": {}}'.encode("utf-16"),
}


@pytest.mark.parametrize("raw", LARGE.values(), ids=LARGE.keys())
def test_large_or_strange_file_is_refused_at_once(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    assert told(lambda: resolve_engine_config(load_engine_config(path), 1, "cpu")) is None
