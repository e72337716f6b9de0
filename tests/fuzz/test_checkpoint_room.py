"""A made-up checkpoint of few bytes takes no more memory or time than it is long."""

import resource
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch

from ds_trainer.checkpoint import load_checkpoint, load_model
from ds_trainer.errors import CheckpointError
from ds_trainer.tasks.toy.task import ToyTask

from .checkpoints import TOY, content, saved


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints") / "best.pth"


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


def test_a_pickle_under_another_name_is_looked_at_too(path: Path) -> None:
    """torch asks for data.pkl in capitals and small letters alike."""
    raw = BytesIO()
    with (
        zipfile.ZipFile(BytesIO(saved({**content("toy"), "more": ROOMY["bytes"]}))) as whole,
        zipfile.ZipFile(raw, "w") as renamed,
    ):
        for name in whole.namelist():
            renamed.writestr(name.replace("data.pkl", "DATA.PKL"), whole.read(name))
    path.write_bytes(raw.getvalue())
    with pytest.raises(CheckpointError, match=r"it names '.* bytearray', which no plain value or tensor needs"):
        load_checkpoint(path)
