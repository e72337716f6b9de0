"""A batch that makes the gradient NaN or infinite: skipped, counted, saved; and the run stops when it goes on."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from launching import ROOT, run, succeed, torchrun

from ds_trainer.checkpoint import load_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# A task of a user's own, whose data has been spoilt for some examples.
TASK = """
import torch
from ds_trainer.tasks.toy.task import ToyTask

class Spoilt:
    def __init__(self, dataset, bad):
        self.dataset, self.bad = dataset, set(bad)

    def __len__(self):
        return 320  # whole steps: else it could fill up the last micro-batch, too, whose step would be skipped as well

    def __getitem__(self, index):
        features, target = self.dataset[index]
        return torch.full_like(features, float("nan")) if index in self.bad else features, target

    def name_of(self, index):
        return f"clip-{index}"

class Some(ToyTask):
    def __init__(self, settings):
        super().__init__(settings)
        self.train_set = Spoilt(self.train_set, [5])

class All(ToyTask):
    def __init__(self, settings):
        super().__init__(settings)
        self.train_set = Spoilt(self.train_set, range(len(self.train_set)))
"""


@pytest.fixture
def task_dir(tmp_path: Path) -> Path:
    (tmp_path / "spoilt.py").write_text(TASK)
    return tmp_path


def command(task_dir: Path, task: str, config: str) -> list[str | Path]:
    root = Path(__file__).parents[1]
    return [
        root / "launch/train.py", "--deepspeed_config", root / "ds_configs" / config, "--task", f"spoilt:{task}",
        "--num_epochs", "2", "--record_every_steps", "1", "--runs_dir", task_dir / "runs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "world_size"),
    [pytest.param("bf16.json", 1, marks=pytest.mark.any_device), ("bf16.json", 2), ("fp32.json", 2)],
)
def test_bad_batch_is_skipped_counted_and_saved(task_dir: Path, config: str, world_size: int) -> None:
    train = [*torchrun(world_size), *command(task_dir, "Some", config), "--max_skipped_steps", "2"]
    output = succeed(train, cwd=task_dir)  # two steps are skipped, not in a row
    assert "1 step skipped" in output
    (run_dir,) = (task_dir / "runs").iterdir()
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    epochs = [record for record in records if record["kind"] == "epoch"]
    assert [epoch["skipped_steps"] for epoch in epochs] == [1, 1]
    assert all(math.isfinite(epoch["train_loss"]) and math.isfinite(epoch["grad_norm"]) for epoch in epochs)
    bad_steps = [record["step"] for record in records if record["kind"] == "step" and record["loss"] is None]
    folders = sorted((run_dir / "bad_batches").iterdir())
    if world_size == 1:  # the step's loss is that of the master's examples
        assert [folder.name for folder in folders] == [f"step_{step:08d}" for step in bad_steps]
    for epoch, folder in enumerate(folders):
        saved = json.loads((folder / "batch.json").read_text())
        assert (saved["epoch"], saved["world_size"]) == (epoch, world_size)
        assert saved["num_updates_since"] == world_size - 1, "several ranks know it a step later"
        bad = [micro_step for micro_step in saved["micro_steps"] if micro_step["loss"] is None]
        assert len(bad) == 1
        assert bad[0]["loss_text"] == "nan"
        assert "clip-5" in bad[0]["names"]
        assert len(bad[0]["names"]) == bad[0]["num_real"]
        assert f"rank {bad[0]['rank']})" in output
        weights = load_checkpoint(folder / "weights.pth")["state_dict"].values()
        assert all(bool(torch.isfinite(weight).all()) for weight in weights)


@pytest.mark.parametrize(("task", "is_bad"), [("toy", False), ("spoilt:Some", True)])
def test_a_loss_scale_that_is_too_large_is_no_bad_batch(task_dir: Path, task: str, is_bad: bool) -> None:
    root = Path(__file__).parents[1]
    config = json.loads((root / "ds_configs" / "fp16.json").read_text())
    config["fp16"] |= {"initial_scale_power": 24, "hysteresis": 1}
    (task_dir / "fp16.json").write_text(json.dumps(config))
    flags = ["--deepspeed_config", task_dir / "fp16.json", "--task", task, "--runs_dir", task_dir / "runs"]
    train = [*torchrun(2), Path(__file__).with_name("fp16_on_cpu.py"), *flags]
    output = succeed([*train, "--num_epochs", "1"], cwd=task_dir)
    assert "steps skipped" in output
    (run_dir,) = (task_dir / "runs").iterdir()
    saved = [json.loads(path.read_text()) for path in run_dir.glob("bad_batches/*/batch.json")]
    assert all(any(line["loss"] is None for line in batch["micro_steps"]) for batch in saved)
    assert len(saved) == is_bad
    assert ("its gradient was NaN or infinite" in output) == is_bad
    succeed([*train, "--num_epochs", "2", "--resume", run_dir], cwd=task_dir)
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    skipped = [record["skipped_steps"] for record in records if record["kind"] == "epoch"]
    assert skipped[1] == is_bad < skipped[0], "a run goes on with the loss scale that it has found"


def test_run_stops_when_every_step_is_bad(task_dir: Path) -> None:
    finished = run(
        [*torchrun(2), *command(task_dir, "All", "bf16.json"), "--max_skipped_steps", "3"],
        cwd=task_dir,
    )
    assert finished.returncode != 0
    assert "NaN or infinite in 3 steps in a row" in finished.stdout
    assert "lower the learning rate" in finished.stdout
    (run_dir,) = (task_dir / "runs").iterdir()
    status = json.loads((run_dir / "status.json").read_text())
    assert status["status"] == "failed"
    assert "NonFiniteLossError" in status["reason"]
    assert len(list((run_dir / "bad_batches").iterdir())) == 3


OF_A_SCRIPT = """
import sys

import ds_trainer.replay.command
from faulty_task import FaultyTask


class Mine(FaultyTask):
    pass


run_dir = ds_trainer.train(
    deepspeed_config=sys.argv[1], task=Mine, fault="augmentation", num_epochs=1, runs_dir=sys.argv[2]
)
(folder,) = (run_dir / "bad_batches").iterdir()
assert ds_trainer.replay.command.main([str(folder), "--task", "__main__:Mine"]) == 0
"""


def test_batch_of_a_task_of_a_script_is_replayed_in_its_process(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(OF_A_SCRIPT)
    output = succeed([sys.executable, tmp_path / "script.py", ROOT / "ds_configs" / "fp32.json", tmp_path / "runs"])
    (folder,) = (tmp_path / "runs").glob("*/bad_batches/*")
    call = f"ds_trainer.replay.command.main(['{folder}', '--task', '__main__:Mine'])"
    assert f"in this script or notebook, {call} shows why" in output
    assert "clip-05" in output.split("shows why")[1]
