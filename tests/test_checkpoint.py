"""Unit: what is written comes back without running code, and a file that is no checkpoint is refused in one line."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ds_trainer.checkpoint import FORMAT, load_checkpoint, load_model, write_checkpoint
from ds_trainer.errors import CheckpointError, SettingsError, WriteError
from ds_trainer.export.formats import MOST_DIFFERENCE
from ds_trainer.tasks.toy.task import ToyTask

DESCRIPTION = {"num_hidden": 4, "num_arms": 3, "dropout": 0.5}


class Malicious:
    """Unpickled, it would make a folder."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.trace),)


def content(**changed: Any) -> dict[str, Any]:
    model = ToyTask.model_from(DESCRIPTION)
    return {
        "task": "toy",
        "description": DESCRIPTION,
        "state_dict": model.state_dict(),
        "settings": {"seed": 3, "runs_dir": "runs", "signers": ["s1"], "labels": None},
        "engine_config": {"train_micro_batch_size_per_gpu": 4},
        "epoch": 4,
        "metrics": {"val_loss": 0.25},
        **changed,
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "best.pth"


def test_checkpoint_comes_back_and_needs_no_code(path: Path) -> None:
    written = content()
    write_checkpoint(path, written)
    loaded = load_checkpoint(path)
    weights, loaded_weights = written.pop("state_dict"), loaded.pop("state_dict")
    assert loaded == {"format": FORMAT, **written}
    assert list(loaded_weights) == list(weights)
    assert all(torch.equal(loaded_weights[name], weights[name]) for name in weights)
    assert torch.load(path, weights_only=True)["format"] == FORMAT
    assert list(path.parent.iterdir()) == [path]


def test_model_comes_back_ready_to_use(path: Path) -> None:
    written = content()
    write_checkpoint(path, written)
    original = ToyTask.model_from(DESCRIPTION)
    original.load_state_dict(written["state_dict"])
    points = torch.randn(5, 2)
    model = load_model(load_checkpoint(path))
    assert not model.training
    assert torch.equal(model(points), original.eval()(points))


def test_paths_are_taken_as_text(path: Path) -> None:
    write_checkpoint(path, content())
    assert load_checkpoint(str(path))["task"] == "toy"
    with pytest.raises(CheckpointError, match=r"other\.pth: no such file"):
        load_checkpoint(str(path.parent / "other.pth"))
    (path.parent / "notes.txt").write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match=r"notes\.txt: damaged, or no checkpoint"):
        load_checkpoint(str(path.parent / "notes.txt"))


@pytest.mark.parametrize("given", ["runs/a/best.pth", Path("runs/a"), {"weight": torch.zeros(1)}])
def test_what_is_no_checkpoint_is_told_what_loads_one(given: Any) -> None:
    told = r"^found an? \w+, expected what load_checkpoint gives; write load_model\(load_checkpoint\(path\)\)$"
    with pytest.raises(CheckpointError, match=told):
        load_model(given)


def test_pickled_code_is_not_run(path: Path) -> None:
    trace = path.parent / "trace"
    torch.save({"format": FORMAT, "state_dict": Malicious(trace)}, path)
    with pytest.raises(CheckpointError, match=r"best\.pth: damaged, or no checkpoint of ds_trainer"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(Malicious(trace)))
    with pytest.raises(CheckpointError, match=r"best\.pth: damaged, or no checkpoint of ds_trainer"):
        load_checkpoint(path)
    assert not trace.exists()
    torch.load(_saved(Malicious(trace), path), weights_only=False)
    assert trace.exists(), "the trap would have worked"


@pytest.mark.parametrize("kept_fraction", [0, 0.3, 0.9, 0.999])
def test_truncated_file(path: Path, kept_fraction: float) -> None:
    write_checkpoint(path, content())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept_fraction * len(whole))])
    with pytest.raises(CheckpointError, match=r"best\.pth: damaged, or no checkpoint of ds_trainer \(.+\)") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("other", "found"),
    [
        ({"format": "ds_trainer checkpoint 99"}, "found format 'ds_trainer checkpoint 99'"),
        ({"weights": torch.ones(1)}, "found format None"),
        ([1, 2], "found format 'list'"),
        (torch.ones(2), "found format 'Tensor'"),
    ],
)
def test_file_of_another_program(path: Path, other: Any, found: str) -> None:
    told = f"best.pth: {found}, expected '{FORMAT}'; load weights of other programs in a task's build_model$"
    with pytest.raises(CheckpointError, match=told):
        load_checkpoint(_saved(other, path))


@pytest.mark.parametrize("name", ["task", "description", "state_dict", "settings", "engine_config", "epoch"])
def test_checkpoint_that_lacks_something(path: Path, name: str) -> None:
    write_checkpoint(path, {key: value for key, value in content().items() if key != name})
    with pytest.raises(
        CheckpointError, match=rf"best\.pth: {name}: found NoneType, expected .*; the file is incomplete"
    ):
        load_checkpoint(path)


@pytest.mark.parametrize("temperature", ["hot", None, 0.0, -1.0, float("nan"), float("inf")])
def test_temperature_that_is_none(path: Path, temperature: Any) -> None:
    write_checkpoint(path, content(temperature=2))
    assert load_checkpoint(path)["temperature"] == 2
    write_checkpoint(path, content(temperature=temperature))
    with pytest.raises(CheckpointError, match=r"best\.pth: temperature: found .*, expected a number above 0"):
        load_checkpoint(path)


@pytest.mark.parametrize("number", ["many", None, -1, 0.5, torch.tensor(2)])
def test_number_of_examples_that_is_none(path: Path, number: Any) -> None:
    write_checkpoint(path, content(adapted_to=number))
    with pytest.raises(CheckpointError, match=r"best\.pth: adapted_to: found .*, expected a number of examples"):
        load_checkpoint(path)


def test_file_that_is_none(path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"best\.pth: no such file; expected the best\.pth of a run directory"):
        load_checkpoint(path)
    path.mkdir()
    with pytest.raises(CheckpointError, match=r"best\.pth: it is a folder, expected a \.pth, such as the best\.pth of"):
        load_checkpoint(path)
    (path.parent / "notes.txt").write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match=r"notes\.txt: damaged, or no checkpoint"):
        load_checkpoint(path.parent / "notes.txt")


@pytest.mark.parametrize("form", sorted({*MOST_DIFFERENCE} - {"pth"}))
def test_export_is_no_checkpoint(path: Path, form: str) -> None:
    export = path.with_suffix(f".{form}")
    export.write_bytes(b"an export")
    with pytest.raises(CheckpointError, match=rf"best\.{form}: found an export, .*; give the run or its \.pth"):
        load_checkpoint(export)


def test_checkpoint_of_an_unknown_task(path: Path) -> None:
    write_checkpoint(path, content(task="toi"))
    with pytest.raises(SettingsError, match="found 'toi'; did you mean 'toy'"):
        load_model(load_checkpoint(path))


def test_module_is_not_imported_because_a_file_names_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = path.parent / "trace"
    (path.parent / "from_elsewhere.py").write_text(f"open({str(trace)!r}, 'w')")
    monkeypatch.chdir(path.parent)
    monkeypatch.syspath_prepend(path.parent)
    with pytest.raises(CheckpointError, match="nothing is imported because a file names it: import from_elsewhere"):
        load_model(content(task="from_elsewhere:Task"))
    assert not trace.exists()


def test_compressed_file_is_refused_before_it_is_unpacked(path: Path) -> None:
    """A thousandth of its size on disk could else fill the memory."""
    write_checkpoint(path, content())
    packed = path.with_name("packed.pth")
    with zipfile.ZipFile(path) as stored, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in stored.namelist():
            archive.writestr(name, stored.read(name))
    with pytest.raises(CheckpointError, match="it is compressed, which torch never does"):
        load_checkpoint(packed)


def test_sparse_weights_are_not_those_of_a_model(path: Path) -> None:
    weights = content()["state_dict"]
    name, weight = next((name, weight) for name, weight in weights.items() if weight.ndim == 2)
    with pytest.raises(CheckpointError, match=f"state_dict: {name}: found "):
        load_model(content(state_dict={**weights, name: weight.to_sparse()}))


class FailsToPickle:
    """Found deep in a checkpoint after its first bytes are on disk."""

    def __reduce__(self) -> Any:
        raise OSError(28, "No space left on device")


def test_failing_write_leaves_the_old_checkpoint(path: Path) -> None:
    write_checkpoint(path, content(epoch=1))
    with pytest.raises(WriteError, match=r"best\.pth: cannot be written \(No space left on device\)"):
        write_checkpoint(path, content(epoch=2, extra=FailsToPickle()))
    assert load_checkpoint(path)["epoch"] == 1
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.usefixtures("small_disk")
def test_full_disk(path: Path) -> None:
    write_checkpoint(path, content(epoch=1))
    with pytest.raises(WriteError, match=r"best\.pth: cannot be written"):
        write_checkpoint(path, content(epoch=2, extra=torch.zeros(50_000)))
    assert load_checkpoint(path)["epoch"] == 1


def _saved(value: Any, path: Path) -> Path:
    torch.save(value, path)
    return path
