"""Contract: every task of `ds_trainer.tasks`, and one that a user wrote, fits the seam of `ds_trainer.task`."""

import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from launching import succeed
from sign_data.writers import frames
from torch.utils.data import Subset

import ds_trainer.tasks
from ds_trainer.batches import BatchLoader, ShardedSampler
from ds_trainer.checkpoint import load_checkpoint, load_model, write_checkpoint
from ds_trainer.command_line import load_settings
from ds_trainer.errors import SettingsError, TaskError
from ds_trainer.settings import combined_settings
from ds_trainer.task import Task, load_task_type
from ds_trainer.tasks.toy.task import ToySettings, ToyTask
from ds_trainer.validation import validate

OWN_TASK = '''
"""What a user writes to train something else: the slope of a line through the origin, without classes."""

import torch
from torch import nn
from torch.utils.data import TensorDataset

from ds_trainer.objective import Objective
from ds_trainer.settings import TaskSettings, setting
from ds_trainer.task import Task


class LineSettings(TaskSettings):
    slope: float = setting(2.0, "line task", "what is to be found")


class LineTask(Task):
    settings_type = LineSettings

    def __init__(self, settings):
        x = torch.linspace(-1, 1, 21)[:, None]
        self.train_set = self.val_set = TensorDataset(x, settings.slope * x)
        self.objective = Objective(loss=lambda outputs, targets: (outputs - targets).square().mean(1))

    def build_model(self):
        return self.model_from({})

    def label(self):
        return "line"

    def description(self):
        return {}

    @classmethod
    def model_from(cls, description):
        return nn.Linear(1, 1)
'''
OWN_TASK_NAME = "my_task:LineTask"
NAMES = [module.name for module in pkgutil.iter_modules(ds_trainer.tasks.__path__)]


@pytest.fixture
def working_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a user of an own task stands; what is imported from there is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("my_task", None)
    importlib.invalidate_caches()


def test_working_directory_is_no_place_of_modules_for_our_own_tasks(working_dir: Path) -> None:
    """A file there, json.py say, would else be found by whatever imports a module later."""
    for name in NAMES:
        load_task_type(name)
    assert str(working_dir) not in sys.path


def flags_for(name: str, folder: Path) -> list[str]:
    """A small instance of each task, as a user would ask for it."""
    if name == "sign":
        np.savez(folder / "clips.npz", **sign_clips())
        return ["--data", str(folder / "clips.npz"), "--stores_dir", str(folder / "stores"), "--model_size", "t_2_1"]
    if name == "toy":
        return ["--num_points", "40"]
    (folder / "my_task.py").write_text(OWN_TASK)
    return []


def sign_clips() -> dict[str, Any]:
    """Twelve packed clips of two signs by three signers."""
    return {
        "frames": frames(60),
        "offsets": np.arange(0, 61, 5),
        "y": np.arange(12) % 2,
        "label_names": np.array(["hello", "world"]),
        "signer": np.array(["ann", "bob", "cem"]).repeat(4),
        "ids": np.arange(12).astype(str),
    }


@pytest.fixture(params=[*NAMES, OWN_TASK_NAME])
def task(request: pytest.FixtureRequest, working_dir: Path) -> Task:
    name = request.param
    argv = ["--deepspeed_config", "unused.json", "--task", name, *flags_for(name, working_dir)]
    settings = load_settings(argv, load_task_type)
    return load_task_type(settings.task)(settings)


def loader(task: Task, dataset: Any, seed: int | None = None) -> BatchLoader:
    return BatchLoader(dataset, ShardedSampler(len(dataset), 4, seed=seed), task.prepare, task.collate)


def test_splits_and_names(task: Task) -> None:
    for split in (task.train_set, task.val_set):
        assert len(split) > 0  # type: ignore[arg-type]
    assert re.fullmatch(r"[\w.-]+", task.label()), "a part of a directory's name"
    fingerprint = task.fingerprint()
    assert fingerprint, "a run is not continued on other data"
    task.val_set = Subset(task.val_set, [0])
    if "fingerprint" not in vars(type(task)):
        assert task.fingerprint() != fingerprint
    assert all(isinstance(notice, str) for notice in task.notices)
    if task.class_names is not None:
        assert all(isinstance(name, str) and name for name in task.class_names)


@pytest.mark.parametrize("seed", [0, None], ids=["training", "validation"])
def test_one_batch_gives_a_loss_for_each_example(task: Task, seed: int | None) -> None:
    batch = next(iter(loader(task, task.train_set, seed)))
    model = task.build_model()
    losses = task.objective.loss(model(*batch.inputs), batch.targets)
    assert losses.shape == (4,)
    assert losses.dtype == torch.float32
    assert losses.isfinite().all()
    losses.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_training_reduces_the_loss(task: Task) -> None:
    torch.manual_seed(0)
    model = task.build_model()
    before = validate(model, task.objective, loader(task, task.train_set)).loss
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for epoch in range(8):
        batches = loader(task, task.train_set, seed=0)
        batches.sampler.set_epoch(epoch)
        for batch in batches:
            optimizer.zero_grad()
            (task.objective.loss(model.train()(*batch.inputs), batch.targets) * batch.weight_B).mean().backward()
            optimizer.step()
    assert validate(model, task.objective, loader(task, task.train_set)).loss < before


def test_metrics_are_named_numbers(task: Task) -> None:
    metrics = validate(task.build_model(), task.objective, loader(task, task.val_set))
    assert torch.isfinite(torch.tensor([metrics.loss, *metrics.named.values()])).all()
    assert all(type(value) is float for value in metrics.named.values()), "they are written as JSON"
    if task.class_names is not None:
        assert set(metrics.named) >= {"top1", "top5", "macro_f1"}
        assert metrics.measures_NM[:, [0, 2]].max() < len(task.class_names)


def test_checkpoint_rebuilds_the_model(task: Task, tmp_path: Path) -> None:
    model = task.build_model().eval()
    name = next((name for name in NAMES if load_task_type(name) is type(task)), OWN_TASK_NAME)
    content = {"task": name, "description": task.description(), "state_dict": model.state_dict()}
    content |= {"settings": {}, "engine_config": {}, "epoch": 0}
    write_checkpoint(tmp_path / "best.pth", content)
    rebuilt = load_model(load_checkpoint(tmp_path / "best.pth"))
    assert list(rebuilt.state_dict()) == list(model.state_dict())
    (inputs, *_) = next(iter(loader(task, task.val_set)))
    assert torch.equal(rebuilt(*inputs), model(*inputs))


def test_weights_follow_the_seed_of_torch(task: Task) -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([parameter.detach().flatten() for parameter in task.build_model().parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


# -- what users type wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("my_tsk:LineTask", "--task: no module 'my_tsk' in the working directory or installed"),
        ("my_task:Line", "--task: 'my_task' has no class 'Line' derived from ds_trainer.task.Task"),
        ("my_task:LineSettings", "--task: 'my_task' has no class 'LineSettings' derived"),
        ("my_task:", "--task: 'my_task' has no class '' derived"),
        (":LineTask", "--task: found ':LineTask'; expected a task of ds_trainer.tasks, or your own as module:Class"),
        ("./my_task.py:LineTask", "--task: found './my_task.py:LineTask'; expected"),
        ("my_task.py:LineTask", "--task: no module 'my_task.py'"),
        ("my_tsk.a.b:LineTask", "--task: no module 'my_tsk.a.b'"),
        ("my_task", "--task: found 'my_task'; known names: sign, toy (or your own, as module:Class)"),
        ("toi", "--task: found 'toi'; did you mean 'toy'? (or your own, as module:Class)"),
    ],
)
def test_own_task_that_is_not_found(working_dir: Path, name: str, problem: str) -> None:
    (working_dir / "my_task.py").write_text(OWN_TASK)
    with pytest.raises(SettingsError) as caught:
        load_task_type(name)
    assert str(caught.value).startswith(problem)


def test_errors_inside_an_own_task_are_shown_as_they_are(working_dir: Path) -> None:
    (working_dir / "my_task.py").write_text("import no_such_package\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        load_task_type(OWN_TASK_NAME)


def test_settings_of_an_own_task_are_checked_like_all_others(working_dir: Path) -> None:
    flags_for(OWN_TASK_NAME, working_dir)
    argv = ["--deepspeed_config", "unused.json", "--task", OWN_TASK_NAME, "--slope", "steep", "--sloppe", "1"]
    with pytest.raises(SettingsError) as caught:
        load_settings(argv, load_task_type)
    assert caught.value.problems == [
        "--sloppe: unknown flag; did you mean '--slope'?",
        "--slope: found 'steep'; input should be a valid number",
    ]


@pytest.mark.parametrize("items", [{"image": 1, "label": 2}, (1, 2, 3), torch.zeros(2)])
def test_items_that_are_no_pairs_need_a_prepare(items: Any) -> None:
    task = ToyTask(combined_settings(ToySettings)(deepspeed_config=Path("unused"), num_points=20))
    with pytest.raises(TaskError, match=r"items: found .*, expected \(input, target\); or give the task a `prepare`"):
        task.prepare(items, torch.device("cpu"), None)


def test_tasks_need_no_deepspeed(working_dir: Path) -> None:
    """A trained model must be usable where DeepSpeed is not installed."""
    tasks = ", ".join(f"ds_trainer.tasks.{name}" for name in NAMES)
    code = f"import sys; import ds_trainer.checkpoint, {tasks}; sys.exit('deepspeed' in sys.modules)"
    succeed([sys.executable, "-c", code], timeout_s=60)
