"""A damaged or made-up checkpoint: the model that was written, or told; nothing in it is run or imported."""

import os
import pickle
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ds_trainer.checkpoint import load_checkpoint, load_model, task_type_of
from ds_trainer.errors import CheckpointError
from ds_trainer.predict import load_recogniser
from ds_trainer.pretrained import before

from .checkpoints import SIGN, TASKS, content, saved
from .strategies import TEXTS, VALUES, Bomb, damaged, examples, told, with_changes

WHOLE = {task: saved(content(task)) for task in TASKS}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints") / "best.pth"


def try_to_load(path: Path, raw: bytes) -> nn.Module | None:
    path.write_bytes(raw)
    return told(lambda: load_model(load_checkpoint(path)))


@pytest.mark.parametrize("task", TASKS)
@examples(50)
@given(st.data())
def test_damaged_file(path: Path, task: str, data: st.DataObject) -> None:
    model = try_to_load(path, data.draw(damaged(WHOLE[task])))
    if model is not None:
        for name, weight in content(task)["state_dict"].items():
            assert torch.equal(model.state_dict()[name], weight), "other weights, in silence"


def test_changed_bit_in_the_weights_is_told(path: Path) -> None:
    """torch.load takes it for another weight."""
    raw = bytearray(WHOLE["toy"])
    raw[raw.index(content("toy")["state_dict"]["layers.0.weight"].numpy().tobytes()) + 5] ^= 1
    path.write_bytes(raw)
    assert torch.load(path, weights_only=True)["task"] == "toy"
    with pytest.raises(CheckpointError, match=r"best\.pth: damaged, .*the checksum of '.*' is wrong"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", sorted(SIGN.keys() - {"sign_numbers"}))
def test_a_description_that_lacks_something_is_told(path: Path, name: str) -> None:
    rest = {other: value for other, value in SIGN.items() if other != name}
    path.write_bytes(saved({**content("sign"), "description": rest}))
    with pytest.raises(CheckpointError, match=f"^description: .*'{name}'"):
        load_model(load_checkpoint(path))


@examples(50)
@given(st.sampled_from(sorted(TASKS)).flatmap(lambda task: with_changes(content(task))))
def test_changed_content(path: Path, changed: dict[str, Any]) -> None:
    try_to_load(path, saved(changed))


@examples(50)
@given(with_changes(content("sign")))
def test_what_predicts_is_told_too(path: Path, changed: dict[str, Any]) -> None:
    path.write_bytes(saved(changed))
    told(lambda: load_recogniser(load_checkpoint(path)))


@examples(50)
@given(st.sampled_from(sorted(TASKS)), st.data())
def test_changed_description(path: Path, task: str, data: st.DataObject) -> None:
    description = data.draw(with_changes(TASKS[task][1]))
    model = try_to_load(path, saved({**content(task), "description": description}))
    if model is not None:
        shapes = {name: weight.shape for name, weight in model.state_dict().items()}
        assert shapes == {name: weight.shape for name, weight in content(task)["state_dict"].items()}


ABSURD: dict[str, tuple[str, dict[str, Any]]] = {
    "hidden": ("toy", {"num_hidden": 10**6}),
    "arms": ("toy", {"num_arms": 10**12}),
    "frames": ("sign", {"num_frames": 10**12}),
    "size": ("sign", {"model_size": "l_99_9"}),
    "keypoints": ("sign", {"parts": {"all": list(range(10**5))}}),
}


@pytest.mark.parametrize(("task", "changed"), ABSURD.values(), ids=ABSURD.keys())
def test_model_of_an_absurd_size_is_told_and_not_built(path: Path, task: str, changed: dict[str, Any]) -> None:
    whole = content(task)
    path.write_bytes(saved({**whole, "description": {**whole["description"], **changed}}))
    with pytest.raises(CheckpointError, match="the description is of another model"):
        load_model(load_checkpoint(path))


@pytest.mark.timeout(60)
def test_any_number_of_members_is_told_before_one_is_built(path: Path) -> None:
    path.write_bytes(saved({**content("sign"), "description": {**SIGN, "num_members": 10**9}}))
    with pytest.raises(CheckpointError, match=r"num_members: found 1000000000, expected 1 to 100"):
        load_model(load_checkpoint(path))


def _without(weights: dict[str, Tensor]) -> None:
    del weights["layers.0.weight"]


def _with_another(weights: dict[str, Tensor]) -> None:
    weights["layers.9.weight"] = torch.ones(1)


def _turned(weights: dict[str, Tensor]) -> None:
    weights["layers.0.weight"] = weights["layers.0.weight"].T.clone()


def _whole(weights: dict[str, Tensor]) -> None:
    weights["layers.0.weight"] = weights["layers.0.weight"].long()


def _complex(weights: dict[str, Tensor]) -> None:
    weights["layers.0.weight"] = weights["layers.0.weight"].to(torch.complex64)


def _sparse(weights: dict[str, Tensor]) -> None:
    weights["layers.0.weight"] = weights["layers.0.weight"].to_sparse()


def _meta(weights: dict[str, Tensor]) -> None:
    weights["layers.0.weight"] = weights["layers.0.weight"].to("meta")


def _text(weights: dict[Any, Any]) -> None:
    weights["layers.0.weight"] = "x"


def _other_key(weights: dict[Any, Any]) -> None:
    weights[3] = torch.ones(1)


CHANGES = [_without, _with_another, _turned, _whole, _complex, _sparse, _meta, _text, _other_key]


@pytest.mark.parametrize("change", CHANGES)
def test_weights_of_another_model_are_told(path: Path, change: Callable[[dict[Any, Any]], None]) -> None:
    whole = content("toy")
    change(whole["state_dict"])
    assert try_to_load(path, saved(whole)) is None


@examples(40)
@given(value=VALUES)
def test_file_of_anything(path: Path, value: Any) -> None:
    assert try_to_load(path, saved(value)) is None


def test_no_pickle_is_run(path: Path, tmp_path: Path) -> None:
    bomb = Bomb(tmp_path / "trace")
    files = [pickle.dumps(bomb), saved(bomb), *(saved({**content("toy"), key: bomb}) for key in content("toy"))]
    old_form = BytesIO()
    torch.save(content("toy") | {"epoch": bomb}, old_form, _use_new_zipfile_serialization=False)
    for raw in [*files, old_form.getvalue()]:
        assert try_to_load(path, raw) is None
    assert not (tmp_path / "trace").exists()


@examples(40)
@given(task=TEXTS | st.builds("{}:{}".format, TEXTS, TEXTS) | VALUES)
def test_any_task(path: Path, task: Any) -> None:
    assert try_to_load(path, saved({**content("toy"), "task": task})) is None


@pytest.mark.parametrize(
    "task", ["trap:Trap", "package.trap:Trap", "os:system", "builtins:eval", "ds_trainer.task:Task"]
)
def test_nothing_is_imported_because_a_checkpoint_names_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    (tmp_path / "package").mkdir()
    for module in (tmp_path / "trap.py", tmp_path / "package" / "__init__.py", tmp_path / "package" / "trap.py"):
        module.write_text(f"open({str(tmp_path / 'trace')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert try_to_load(path, saved({**content("toy"), "task": task})) is None
    assert not (tmp_path / "trace").exists()
    assert "trap" not in sys.modules


def test_no_file_in_place_of_a_file(path: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), tmp_path / "absent", tmp_path / ("x" * 300)):
        assert told(lambda other=other: load_checkpoint(other)) is None


@pytest.mark.parametrize("former", [3, ["a"], {"a": 1}, 0.5, "a\0b", "x" * 5000])
def test_the_weights_that_it_began_with_are_named_by_anything(path: Path, former: Any) -> None:
    path.write_bytes(saved({**content("toy"), "settings": {"pretrained": former}}))
    assert told(lambda: list(before(load_checkpoint(path)))) in ([], None)


@pytest.mark.parametrize("name", ["description", "settings", "engine_config"])
@pytest.mark.parametrize("value", [torch.ones(3), b"x", {(1, 2): 3}], ids=["tensor", "bytes", "key"])
def test_what_is_no_plain_value_is_told(path: Path, name: str, value: Any) -> None:
    """evaluate.py ended with a traceback where it wrote them down."""
    whole = content("toy")
    path.write_bytes(saved({**whole, name: {**whole[name], "more": value}}))
    with pytest.raises(CheckpointError, match=f"{name}: found what is no plain value"):
        load_checkpoint(path)


@pytest.mark.parametrize("changed", [{"sign_names": ["one", "a\nb"]}, {"sign_names": ["one", 2]}])
def test_names_of_signs_that_would_be_other_lines_are_told(path: Path, changed: dict[str, Any]) -> None:
    """A line of predict.py is a clip."""
    path.write_bytes(saved({**content("sign"), "description": {**SIGN, **changed}}))
    with pytest.raises(CheckpointError, match=r"sign_names: found .*, expected a text in one line"):
        load_recogniser(load_checkpoint(path))


@pytest.mark.parametrize("changed", [{"sign_numbers": [1]}, {"sign_numbers": None}, {"sign_names": "ab"}])
def test_signs_without_a_number_each_are_told(path: Path, changed: dict[str, Any]) -> None:
    path.write_bytes(saved({**content("sign"), "description": {**SIGN, **changed}}))
    with pytest.raises(CheckpointError, match="found no sign_numbers, expected one of each of sign_names"):
        load_recogniser(load_checkpoint(path))


@pytest.mark.parametrize("name", ["num_frames", "num_read", "motion_fraction", "rest_fraction", "depth_weight"])
def test_numbers_of_a_description_that_are_none_are_told(path: Path, name: str) -> None:
    path.write_bytes(saved({**content("sign"), "description": {**SIGN, name: "x"}}))
    with pytest.raises(CheckpointError, match=r"^description: expected that of a model of the sign task"):
        load_recogniser(load_checkpoint(path))


def test_a_command_that_is_told_can_be_typed_whatever_a_file_names(path: Path) -> None:
    path.write_bytes(saved({**content("toy"), "task": "x; touch trace; :Task"}))
    with pytest.raises(CheckpointError, match="add --task 'x; touch trace; :Task', if you know it"):
        task_type_of(load_checkpoint(path), None, path)
