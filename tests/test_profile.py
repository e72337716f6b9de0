"""`--profile`: what is recorded, and that training does not notice."""

import gzip
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from launching import ROOT, succeed
from torch import Tensor, nn
from torch.utils.data import Subset

from ds_trainer.batches import Batch, BatchLoader, ShardedSampler
from ds_trainer.checkpoint import load_checkpoint
from ds_trainer.loop import micro_step
from ds_trainer.profile_summary import range_name
from ds_trainer.profiling import NUM_NEEDED, NUM_RECORDED, Profile
from ds_trainer.settings import combined_settings
from ds_trainer.tasks.toy.task import ToySettings, ToyTask

MICRO_BATCH, ACCUMULATION = 4, 2
CLIPS_NEEDED = NUM_NEEDED * MICRO_BATCH * ACCUMULATION


class PlainEngine(nn.Module):
    """What the loop asks of an engine, done by plain PyTorch."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def forward(self, points: Tensor) -> Tensor:
        logits: Tensor = self.model(points)
        return logits

    def backward(self, loss: Tensor, scale_wrt_gas: bool) -> None:
        loss.backward()

    def step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()


class Toy:
    """The toy task with so many training clips, and a plain engine for it."""

    def __init__(self, num_clips: int):
        fields = {"deepspeed_config": Path("unused"), "task": "toy", "num_points": 4 * num_clips, "num_hidden": 8}
        self.task = ToyTask(combined_settings(ToySettings)(**fields))
        self.task.train_set = Subset(self.task.train_set, range(num_clips))
        sampler = ShardedSampler(num_clips, MICRO_BATCH, ACCUMULATION, seed=0)
        self.batches = BatchLoader(self.task.train_set, sampler, self.task.prepare)
        torch.manual_seed(0)
        self.engine = PlainEngine(self.task.build_model())

    def train(self, batches: Iterable[Batch]) -> list[float]:
        losses = []
        for batch in batches:
            losses.append(micro_step(self.engine, self.task.objective, batch).item())
            if batch.ends_step:
                self.engine.step()
        return losses


@pytest.fixture
def shown(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO")
    return caplog


# -- recording --------------------------------------------------------------------------------------------------------


def test_nothing_stands_between_where_it_is_not_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = Toy(48)
    assert Profile(toy.engine, tmp_path, is_wanted=False).over(toy.batches) is toy.batches
    monkeypatch.setenv("RANK", "1")
    assert Profile(toy.engine, tmp_path, is_wanted=True).over(toy.batches) is toy.batches


def test_steps_are_recorded_once_and_training_is_the_same(tmp_path: Path, shown: pytest.LogCaptureFixture) -> None:
    plain, profiled = Toy(CLIPS_NEEDED + 24), Toy(CLIPS_NEEDED + 24)
    recorder = Profile(profiled.engine, tmp_path, is_wanted=True)
    assert profiled.train(recorder.over(profiled.batches)) == plain.train(plain.batches)
    assert profiled.train(recorder.over(profiled.batches)) == plain.train(plain.batches)
    assert not {"forward", "backward", "step"} & vars(profiled.engine).keys(), "the engine is as it was"
    with gzip.open(tmp_path / "profile" / "trace.json.gz", "rt") as trace:
        names = [event.get("name", "") for event in json.load(trace)["traceEvents"]]
    assert names.count(range_name("engine step")) == NUM_RECORDED
    assert names.count(range_name("forward")) == NUM_RECORDED * ACCUMULATION
    summary = (tmp_path / "profile" / "summary.txt").read_text().splitlines()
    assert [message for message in shown.messages if not message.startswith("trace ")] == summary
    assert len(summary) < 30
    assert f"{NUM_RECORDED} steps recorded" in summary[0]
    for phase in ("data", "forward", "backward", "engine step", "rest"):
        assert sum(line.startswith(phase) for line in summary) == 1


@pytest.mark.parametrize("num_steps", [1, NUM_NEEDED - 1])
def test_too_short_an_epoch_is_told(tmp_path: Path, shown: pytest.LogCaptureFixture, num_steps: int) -> None:
    toy = Toy(num_steps * MICRO_BATCH * ACCUMULATION)
    assert len(toy.train(Profile(toy.engine, tmp_path, is_wanted=True).over(toy.batches))) > 0
    (message,) = shown.messages
    assert f"the epoch had {num_steps} steps left and {NUM_NEEDED} are needed" in message
    assert list(tmp_path.iterdir()) == []


def test_exactly_enough_steps(tmp_path: Path) -> None:
    toy = Toy(CLIPS_NEEDED)
    assert len(toy.train(Profile(toy.engine, tmp_path, is_wanted=True).over(toy.batches))) == NUM_NEEDED * ACCUMULATION
    assert (tmp_path / "profile" / "summary.txt").exists()


def test_training_that_ends_meanwhile_leaves_no_profiler_behind(tmp_path: Path) -> None:
    toy = Toy(CLIPS_NEEDED)
    batches = iter(Profile(toy.engine, tmp_path, is_wanted=True).over(toy.batches))
    for _ in range(CLIPS_NEEDED // MICRO_BATCH - 1):
        next(batches)
    batches.close()  # type: ignore[attr-defined]  # what an exception in the loop's body comes to
    assert not torch.autograd._profiler_enabled()
    assert "step" not in vars(toy.engine)
    assert list(tmp_path.iterdir()) == []


def test_profile_that_cannot_be_written_does_not_end_training(tmp_path: Path, shown: pytest.LogCaptureFixture) -> None:
    (tmp_path / "profile").touch()
    toy = Toy(CLIPS_NEEDED)
    assert len(toy.train(Profile(toy.engine, tmp_path, is_wanted=True).over(toy.batches))) == NUM_NEEDED * ACCUMULATION
    assert "the profile was not saved" in shown.text
    assert "steps recorded" in shown.text


# -- as a user runs it ------------------------------------------------------------------------------------------------


def train_toy(runs_dir: Path, *flags: str, config: Path = ROOT / "ds_configs" / "bf16.json") -> str:
    toy = ["--task", "toy", "--num_epochs", "2", "--runs_dir", runs_dir]
    return succeed([sys.executable, "launch/train.py", "--deepspeed_config", config, *toy, *flags])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_profiler_of_deepspeed_works_too(tmp_path: Path) -> None:
    config = json.loads((ROOT / "ds_configs" / "bf16.json").read_text())
    config["flops_profiler"] = {"enabled": True, "profile_step": 2, "output_file": str(tmp_path / "flops.txt")}
    (tmp_path / "engine.json").write_text(json.dumps(config))
    train_toy(tmp_path / "runs", config=tmp_path / "engine.json")
    assert "fwd flops per GPU" in (tmp_path / "flops.txt").read_text()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.any_device
def test_profiled_run_trains_to_the_same_bits(tmp_path: Path) -> None:
    output = train_toy(tmp_path / "profiled", "--profile")
    train_toy(tmp_path / "plain")
    profiled, plain = (next((tmp_path / name).iterdir()) for name in ("profiled", "plain"))
    assert "3 steps recorded" in output
    assert f"trace {profiled}/profile/trace.json.gz" in output
    assert (profiled / "profile" / "summary.txt").read_text() in output
    assert not (plain / "profile").exists()
    weights = [load_checkpoint(run / "best.pth")["state_dict"] for run in (profiled, plain)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    records = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (profiled, plain)
    ]
    for record in (*records[0], *records[1]):
        for timing in ("seconds", "examples_per_second"):
            record.pop(timing, None)
    assert records[0] == records[1]
