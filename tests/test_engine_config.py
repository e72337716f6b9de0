"""The engine config is read strictly and completed, whatever stands in it."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from engine_configs import CONFIGS, CONFIGS_DIR, REMOVED, changed
from hypothesis import given
from hypothesis import strategies as st

from ds_trainer.engine.config import check_engine_config, load_engine_config, resolve_engine_config
from ds_trainer.engine.plan import memory_estimate
from ds_trainer.errors import SettingsError


def paths_of(block: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    paths = []
    for key, value in block.items():
        paths.append((*prefix, key))
        if isinstance(value, dict):
            paths += paths_of(value, (*prefix, key))
    return paths


@pytest.mark.parametrize(
    ("train", "micro", "accumulation", "world_size", "expected"),
    [
        (
            64,
            16,
            2,
            1,
            "found 64; 16 (train_micro_batch_size_per_gpu) x 2 (gradient_accumulation_steps) on 1 rank is 32",
        ),
        (100, 16, None, 1, "expected a multiple of 16 (train_micro_batch_size_per_gpu on 1 rank); write 96 or 112"),
        (8, 16, None, 1, "expected a multiple of 16 (train_micro_batch_size_per_gpu on 1 rank); write 16"),
        (64, None, 3, 1, "expected a multiple of 3 (gradient_accumulation_steps on 1 rank); write 63 or 66"),
        (64, 16, None, 3, "expected a multiple of 48 (train_micro_batch_size_per_gpu on 3 ranks); write 48 or 96"),
        (64, None, None, 2, "found 64 alone; write train_micro_batch_size_per_gpu beside it, such as 32 on 2 ranks"),
    ],
)
def test_batch_sizes_must_multiply_out(
    train: int, micro: int | None, accumulation: int | None, world_size: int, expected: str
) -> None:
    sizes = (train, micro, accumulation)
    names = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    config = changed(dict(zip(names, sizes, strict=True)))
    (problem,) = check_engine_config(config, world_size, "cpu", "my.json")
    assert expected in problem


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"train_micro_batch_size_per_gpu": 4}, (8, 4, 1)),
        ({"train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 3}, (24, 4, 3)),
        ({"train_batch_size": 24, "train_micro_batch_size_per_gpu": 4}, (24, 4, 3)),
        ({"train_batch_size": 24, "gradient_accumulation_steps": 3}, (24, 4, 3)),
        ({"train_batch_size": 24, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 3}, (24, 4, 3)),
    ],
)
def test_batch_sizes_are_completed(sizes: dict[str, int], expected: tuple[int, int, int]) -> None:
    config = changed({"train_micro_batch_size_per_gpu": REMOVED, "gradient_accumulation_steps": REMOVED})
    resolved = resolve_engine_config(config | sizes, world_size=2, device_type="cpu")
    names = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    assert tuple(resolved[name] for name in names) == expected


def test_all_problems_are_told_at_once() -> None:
    config = changed({"gradient_cliping": 1.0, "fp16.enabled": True, "scheduler": {}, "steps_per_print": 0})
    with pytest.raises(SettingsError) as caught:
        resolve_engine_config(config, world_size=1, device_type="cuda")
    assert len(caught.value.problems) == 4, caught.value.problems


def test_what_defaults_decide_is_written_out() -> None:
    config = {"train_micro_batch_size_per_gpu": 4, "bf16": {"enabled": True}}
    config |= {"optimizer": {"type": "AdamW", "params": {"lr": 0.001}}}
    before = copy.deepcopy(config)
    resolved = resolve_engine_config(config, world_size=4, device_type="cpu", learning_rate_scale=2.0)
    assert config == before
    assert resolved["gradient_clipping"] == 1.0
    assert resolved["managed_gradient_accumulation"] is False
    assert resolved["bf16"]["check_grad_overflow"] is False, "the fused optimizer skips by itself"
    assert resolved["timers"]["throughput"]["enabled"] is False
    params = resolved["optimizer"]["params"]
    assert (params["lr"], params["weight_decay"], params["torch_adam"], params["fused"]) == (0.002, 0.01, True, True)


def test_adam_without_weight_decay_is_not_ambiguous() -> None:
    config = changed({"optimizer": {"type": "Adam", "params": {"lr": 0.001, "weight_decay": 0.0}}})
    assert resolve_engine_config(config, 1, "cpu")["optimizer"]["params"]["adam_w_mode"] is False


def test_l2_adam_has_no_weight_decay_unless_written() -> None:
    config = changed({"optimizer": {"type": "Adam", "params": {"lr": 0.001, "adam_w_mode": False}}})
    assert resolve_engine_config(config, 1, "cpu")["optimizer"]["params"]["weight_decay"] == 0.0


LETTERS = "abcdefghijklmnopqrstuvwxyz_"


@st.composite
def typos(draw: st.DrawFn) -> tuple[dict[str, Any], tuple[str, ...], str]:
    """A shipped config with one letter of one key dropped, doubled, replaced, or swapped with the next."""
    config = copy.deepcopy(CONFIGS[draw(st.sampled_from(sorted(CONFIGS)))])
    path = draw(st.sampled_from(paths_of(config)))
    key, at = path[-1], draw(st.integers(0, len(path[-1]) - 1))
    letter = draw(st.sampled_from(LETTERS))
    edits = (key[:at] + key[at + 1 :], key[:at] + key[at] + key[at:], key[:at] + letter + key[at + 1 :])
    edits += (key[:at] + key[at : at + 2][::-1] + key[at + 2 :],)
    typo = draw(st.sampled_from([edit for edit in edits if edit != key]))
    block = config
    for parent in path[:-1]:
        block = block[parent]
    block[typo] = block.pop(key)
    return config, (*path[:-1], typo), key


@given(typos())
def test_any_typo_names_the_nearest_key(case: tuple[dict[str, Any], tuple[str, ...], str]) -> None:
    config, path, key = case
    problems = check_engine_config(config, 1, "cuda", "my.json")
    told = [problem for problem in problems if problem.startswith(f"my.json: {'.'.join(path)}: unknown name; ")]
    assert len(told) == 1, problems
    remedy = told[0].split("; ", 1)[1]
    # A key of two letters shares too little with a typo of it: then all names are told.
    assert repr(key) in remedy or (len(key) == 2 and key in remedy.removeprefix("known names: ").split(", "))


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(["auto", "x", "AdamW", "fp32"]),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(st.sampled_from(["enabled", "params", "x"]), values),
    max_leaves=4,
)


@given(name=st.sampled_from(sorted(CONFIGS)), data=st.data(), value=JSON_VALUES)
def test_any_value_is_told_or_resolved(name: str, data: st.DataObject, value: Any) -> None:
    path = data.draw(st.sampled_from(paths_of(CONFIGS[name])))
    config = changed({".".join(path): value}, name)
    if not check_engine_config(config, 2, "cuda", name):
        resolved = resolve_engine_config(config, 2, "cuda")
        assert resolve_engine_config(resolved, 2, "cuda") == resolved


TEXTS = {
    "trailing comma": (
        '{\n  "a": 1,\n}',
        f":{'2:9' if sys.version_info >= (3, 13) else '3:1'}: not JSON: found a comma after the last entry",
    ),
    "slash comment": ('{ // why\n"a": 1}', ":1:3: not JSON: found a comment"),
    "hash comment": ('{"a": 1} # why', ":1:10: not JSON: found a comment"),
    "unquoted key": ("{a: 1}", ":1:2: not JSON: found 'a:'; keys and texts stand in double quotes"),
    "single quotes": ("{'a': 1}", ":1:2: not JSON: found \"'a':\"; keys and texts"),
    "missing comma on a newline": ('{"a": 1\n"b": 2}', ":2:1: not JSON: a comma is missing before this"),
    "missing comma on the line": ('{"a": 1 "b": 2}', ":1:9: not JSON: a comma is missing before this"),
    "truncated": ('{"a": "b', ":1:7: not JSON: unterminated string"),
    "empty": ("", ":1:1: not JSON: the file is empty"),
    "list": ("[]", ": found list; expected a JSON object"),
    "NaN": ('{"a": NaN}', ": found NaN, which is not JSON"),
    "duplicate key": ('{"a": 1, "a": 2}', ": key 'a' stands more than once"),
    "duplicate key inside": ('{"z": {"stage": 1, "stage": 2}}', ": key 'stage' stands more than once"),
}


@pytest.mark.parametrize(("text", "expected"), TEXTS.values(), ids=TEXTS.keys())
def test_what_is_not_strict_json_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "my.json"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_engine_config(path)
    assert str(caught.value).startswith(f"{path}{expected}")


def test_missing_file_names_the_nearest_sibling() -> None:
    with pytest.raises(SettingsError, match=r"bf61\.json: no such file; did you mean 'bf16\.json'"):
        load_engine_config(CONFIGS_DIR / "bf61.json")


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read as text"):
        load_engine_config(tmp_path)


def test_read_back_is_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "my.json"
    path.write_text(json.dumps(CONFIGS["bf16.json"]))
    assert load_engine_config(path) == CONFIGS["bf16.json"]


def test_memory_is_that_of_the_paper() -> None:
    """Figure 1 of arXiv 1910.02054: 7.5 B parameters, 64 ranks, Adam in mixed precision."""
    config = resolve_engine_config(CONFIGS["bf16.json"], 64, "cuda")
    totals = [stage.total / 1e9 for stage in memory_estimate(7_500_000_000, 64, config)]
    assert totals == pytest.approx([120, 31.4, 16.6, 1.9], abs=0.05)
