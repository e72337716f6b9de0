"""A damaged or made-up checkpoint: the model that was written, or told; nothing in it is run or imported."""

import os
import pickle
import resource
import sys
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ds_trainer.checkpoint import FORMAT, load_checkpoint, load_model
from ds_trainer.errors import CheckpointError
from ds_trainer.predict import load_recogniser
from ds_trainer.pretrained import before
from ds_trainer.tasks.sign.known_layouts import layout_for
from ds_trainer.tasks.sign.task import SignTask
from ds_trainer.tasks.toy.task import ToyTask

from .strategies import TEXTS, VALUES, Bomb, damaged, examples, told, with_changes

TOY = {"num_hidden": 4, "num_arms": 3, "dropout": 0.5}
SIGN = {
    **{
        "model": "st_transformer",
        "model_size": "t_1_1",
        "dropout": 0.1,
        "num_frames": 4,
        "depth_weight": 1.0,
        "motion_fraction": 0.0,
        "features": ["place"],
    },
    **{"parts": {"all": [0, 1, 2]}, "layout": layout_for(3, 3).to_dict()},
    **{"num_members": 1, "num_read": 0, "rest_fraction": 0.0, "mirrors_left_handed": True},
    **{"sign_names": ["one", "two"], "sign_numbers": [1, 2]},
}
TASKS: dict[str, tuple[Any, dict[str, Any]]] = {"toy": (ToyTask, TOY), "sign": (SignTask, SIGN)}


def content(task: str) -> dict[str, Any]:
    known = {"format": FORMAT, "task": task, "description": TASKS[task][1], "epoch": 3, "metrics": {}}
    known |= {"settings": {}, "engine_config": {}, "temperature": 1.5}
    return {**known, "state_dict": dict(_weights(task))}


@cache
def _weights(task: str) -> dict[str, Tensor]:
    task_type, description = TASKS[task]
    torch.manual_seed(0)
    weights: dict[str, Tensor] = task_type.model_from(description).state_dict()
    return weights


def saved(value: Any) -> bytes:
    file = BytesIO()
    torch.save(value, file)
    return file.getvalue()


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


class Made:
    """Unpickled, it is what a function makes of these arguments."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self.reduced = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.reduced


def test_weights_that_stand_for_more_than_the_file_holds_are_told(path: Path) -> None:
    """One number repeated by its strides: 3,725 bytes became a model of 1.5 GB, or of any size."""
    description = {**TOY, "num_hidden": 20_000}
    with torch.device("meta"):
        sketch = ToyTask.model_from(description).state_dict()
    weights = {name: torch.zeros(1, dtype=weight.dtype).expand(weight.shape) for name, weight in sketch.items()}
    path.write_bytes(saved({**content("toy"), "description": description, "state_dict": weights}))
    with pytest.raises(CheckpointError, match=r"^state_dict: found 32 bytes of weights, expected 1600[0-9]{6}"):
        load_model(load_checkpoint(path))


def test_weights_in_half_precision_still_load(path: Path) -> None:
    weights = {name: weight.bfloat16() for name, weight in content("toy")["state_dict"].items()}
    path.write_bytes(saved({**content("toy"), "state_dict": weights}))
    load_model(load_checkpoint(path))


WIDE = torch.zeros(1).expand(2**28)
ROOMY = {
    "bytes": Made(bytearray, 2**31),
    "copy": Made(torch._utils._rebuild_device_tensor_from_cpu_tensor, WIDE, torch.float64, "cpu", False),
    "set": Made(set, WIDE),
}


@pytest.mark.parametrize("roomy", ROOMY.values(), ids=ROOMY.keys())
def test_what_makes_much_of_few_bytes_is_not_made(path: Path, roomy: Made) -> None:
    """`weights_only` allows these: 1,353 bytes took 3 GB."""
    path.write_bytes(saved({**content("toy"), "more": roomy}))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"it names '.*', which no plain value or tensor needs"):
        load_checkpoint(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 2**18, "KiB"


def _laughs() -> list[Any]:
    value: list[Any] = ["ha"]
    for _ in range(40):
        value = [value, value]
    return value


def _ring() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [_laughs, _ring])
@pytest.mark.parametrize("name", ["format", "description", "settings", "temperature"])
def test_a_value_that_stands_in_itself_or_stands_for_2_to_the_40_is_told(
    path: Path, make: Callable[[], list[Any]], name: str
) -> None:
    """Compared, checked or shown it would keep a process busy for good."""
    value = {"more": make()} if name in ("description", "settings") else make()
    path.write_bytes(saved({**content("toy"), name: value}))
    with pytest.raises(CheckpointError, match="the same value in many places, or in itself"):
        load_checkpoint(path)


@pytest.mark.parametrize("former", [3, ["a"], {"a": 1}, 0.5, "a\0b", "x" * 5000])
def test_the_weights_that_it_began_with_are_named_by_anything(path: Path, former: Any) -> None:
    path.write_bytes(saved({**content("toy"), "settings": {"pretrained": former}}))
    assert told(lambda: list(before(load_checkpoint(path)))) in ([], None)
