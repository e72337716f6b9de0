"""Unit: a run's directory, its record, and how far it has come."""

import json
import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
import torch
import yaml
from cadences import cadence
from torch import nn

from ds_trainer.errors import WriteError
from ds_trainer.plots.curves import History
from ds_trainer.run import new_dir
from ds_trainer.run.new_dir import new_run_dir
from ds_trainer.run.run_dir import Run
from ds_trainer.validation import Metrics


class PlainEngine:
    """What a run asks of an engine, answered by plain PyTorch."""

    def __init__(self, norm: float | torch.Tensor | None = 0.5):
        self.basic_optimizer = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.125)
        self.norm = norm

    def get_global_grad_norm(self) -> float | torch.Tensor | None:
        return self.norm


def metrics(loss: float, **named: float) -> Metrics:
    return Metrics(loss, named, torch.zeros(0), torch.zeros(0, 0))


def train(run: Run, losses: list[float], num_epochs: int, steps: int = 2, norm: float | None = 0.5) -> list[int]:
    """Epochs of so many steps, with the validation losses of `losses`, as far as they reach."""
    epochs = []
    engine = PlainEngine(norm)
    for epoch in run.remaining_epochs(num_epochs):
        if epoch >= len(losses):
            break
        epochs.append(epoch)
        for step in range(steps):
            run.after_step(engine, torch.tensor(10.0 * epoch + step))
        run.record_epoch(2.5, metrics(losses[epoch], top1=0.75))
    return epochs


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., Run]:
    return lambda **options: Run(tmp_path, {}, cadence(**options))


# -- directory --------------------------------------------------------------------------------------------------------


def test_name_says_when_and_what(tmp_path: Path) -> None:
    run_dir = new_run_dir(tmp_path / "runs", "toy-arms_3")
    assert run_dir.parent == tmp_path / "runs"
    assert run_dir.is_dir()
    when = datetime.strptime(run_dir.name.removesuffix("-toy-arms_3"), "%Y-%m-%d_%H-%M-%S")
    assert abs((datetime.now() - when).total_seconds()) < 60


def test_names_are_unique_within_one_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Frozen(datetime):
        @classmethod
        def now(cls, tz: object = None) -> "Frozen":
            return cls(2026, 11, 22, 14, 3, 9)

    monkeypatch.setattr(new_dir, "datetime", Frozen)
    names = [new_run_dir(tmp_path, "toy").name for _ in range(3)]
    first = "2026-11-22_14-03-09-toy"
    assert names == [first, f"{first}-2", f"{first}-3"]


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="file: is a file, expected a directory; choose another --runs_dir"):
        new_run_dir(tmp_path / "file", "toy")
    with pytest.raises(WriteError, match="runs: cannot be written"):
        new_run_dir(tmp_path / "file" / "runs", "toy")


# -- how far it has come ----------------------------------------------------------------------------------------------


def test_epochs_are_counted_and_the_best_is_remembered(new_run: Callable[..., Run], tmp_path: Path) -> None:
    run = new_run()
    assert run.best_checkpoint is None
    assert train(run, [2.0, 1.0, 1.0, 1.5], num_epochs=4) == [0, 1, 2, 3]
    assert (run.epochs_done, run.steps_done) == (4, 8)
    assert (run.best_loss, run.best_epoch) == (1.0, 1), "an equal loss is no improvement"
    assert run.best_checkpoint == tmp_path / "best.pth"
    assert [run.is_best(metrics(loss)) for loss in (0.99, 1.0, math.nan)] == [True, False, False]


def test_the_last_model_is_the_best_where_that_is_asked_for(new_run: Callable[..., Run]) -> None:
    run = new_run(model_selection="last")
    train(run, [2.0, 1.0, 3.0], num_epochs=3)
    assert (run.best_loss, run.best_epoch) == (3.0, 2)
    assert History(run.records.load()).best_epoch() == 3
    by_loss = new_run()
    train(by_loss, [2.0, 1.0, 3.0], num_epochs=3)
    assert History(by_loss.records.load()[-3:]).best_epoch() == 2


def test_only_the_master_has_a_best_checkpoint_and_writes(
    new_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    run = new_run(record_every_steps=1)
    train(run, [1.0], num_epochs=1)
    run.write_status("running")
    assert (run.epochs_done, run.best_epoch, run.best_checkpoint) == (1, 0, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("early_stopping_epochs", "losses", "num_trained"),
    [
        (0, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 6),
        (1, [3.0, 2.0, 2.5, 1.0, 1.0, 1.0], 3),
        (2, [3.0, 2.0, 2.5, 1.0, 1.0, 1.0], 6),
        (2, [1.0, 1.0, 1.0, 0.5, 0.5, 0.5], 3),
        (9, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 6),
    ],
)
def test_early_stopping(
    new_run: Callable[..., Run], early_stopping_epochs: int, losses: list[float], num_trained: int
) -> None:
    run = new_run(early_stopping_epochs=early_stopping_epochs)
    assert len(train(run, losses, num_epochs=6)) == num_trained


def test_stopped_run_stays_stopped_when_it_is_continued(new_run: Callable[..., Run]) -> None:
    run = new_run(early_stopping_epochs=2)
    train(run, [1.0, 2.0, 3.0, 4.0], num_epochs=6)
    continued = new_run(early_stopping_epochs=2)
    continued.load_state_dict(run.state_dict())
    assert list(continued.remaining_epochs(6)) == []


def test_stopped_run_whose_best_checkpoint_is_lost_trains_another_epoch(new_run: Callable[..., Run]) -> None:
    run = new_run(early_stopping_epochs=2)
    train(run, [1.0, 2.0, 3.0, 4.0], num_epochs=6)
    run.forget_best()
    assert train(run, [1.0, 2.0, 3.0, 3.5, 4.0, 5.0], num_epochs=6) == [3, 4, 5]
    assert run.best_epoch == 3


# -- record -----------------------------------------------------------------------------------------------------------


def test_every_epoch_and_every_nth_step_has_a_line(new_run: Callable[..., Run]) -> None:
    run = new_run(record_every_steps=3)
    train(run, [2.0, 1.0], num_epochs=2, steps=4, norm=0.5)
    run.record_test("test", {"loss": 1.25, "top1": 0.5})
    records = run.records.load()
    assert [(record["kind"], record["step"]) for record in records] == [
        ("step", 3), ("epoch", 4), ("step", 6), ("epoch", 8), ("test", 8),
    ]  # fmt: skip
    assert records[2] == {
        "kind": "step", "epoch": 1, "step": 6, "loss": 11.0, "grad_norm": 0.5, "learning_rate": 0.125
    }  # fmt: skip
    of_epoch = records[1]
    assert of_epoch.pop("seconds") >= 0
    assert of_epoch.pop("examples_per_second") == 0, "no examples were passed"
    assert of_epoch == {
        "kind": "epoch", "epoch": 0, "step": 4, "train_loss": 2.5, "val_loss": 2.0, "learning_rate": 0.125,
        "grad_norm": 0.5, "skipped_steps": 0, "top1": 0.75, "is_best": True,
    }  # fmt: skip
    assert records[4] == {"kind": "test", "split": "test", "step": 8, "loss": 1.25, "top1": 0.5}


@pytest.mark.parametrize(("norms", "mean"), [([1.0, 2.0], 1.5), ([1.0, None], None), ([torch.tensor(3.0), 1.0], 2.0)])
def test_gradient_norm_of_an_epoch_is_the_mean_of_its_steps(
    new_run: Callable[..., Run], norms: list[float | torch.Tensor | None], mean: float | None
) -> None:
    run = new_run()
    for _ in run.remaining_epochs(2):
        for norm in norms:
            run.after_step(PlainEngine(norm), torch.tensor(1.0))
        run.record_epoch(1.0, metrics(1.0))
    assert [record["grad_norm"] for record in run.records.load()] == [mean, mean], "each epoch begins anew"


def test_continued_run_forgets_what_came_after_its_resume_point(new_run: Callable[..., Run]) -> None:
    run = new_run(record_every_steps=1)
    train(run, [2.0], num_epochs=3)
    state, kept = run.state_dict(), run.records.load()
    train(run, [2.0, 1.0, 3.0], num_epochs=3)
    assert len(run.records.load()) == 9
    continued = new_run(record_every_steps=1)
    continued.load_state_dict(json.loads(json.dumps(state)))
    assert continued.records.load() == kept
    nothing_summed = {
        "num_steps": 0, "losses_and_examples": [[0.0, 0.0]], "num_skipped": 0.0, "norm": 0.0, "learning_rate": 0.0
    }  # fmt: skip
    assert continued.state_dict() == {
        "epochs_done": 1, "steps_done": 2, "best_loss": 2.0, "best_epoch": 0, "sums": nothing_summed,
        "unwritten_records": [],
    }  # fmt: skip
    assert train(continued, [2.0, 1.0, 3.0], num_epochs=3) == [1, 2]
    assert [record["step"] for record in continued.records.load()] == [1, 2, 2, 3, 4, 4, 5, 6, 6]


def test_point_at_the_last_step_of_an_epoch_comes_before_the_line_of_that_epoch(new_run: Callable[..., Run]) -> None:
    run = new_run(record_every_steps=1)
    states = []
    for _ in run.remaining_epochs(1):
        for _ in range(2):
            run.after_step(PlainEngine(0.5), torch.tensor(1.0))
            states.append(run.state_dict())
        run.record_epoch(1.0, metrics(1.0))
    run.record_test("test", {"loss": 1.0})
    continued = new_run(record_every_steps=1)
    continued.load_state_dict(states[-1])
    assert [record["kind"] for record in continued.records.load()] == ["step", "step"]
    assert continued.sums.mean_gradient_norm() == 0.5


def test_line_that_was_cut_off_is_left_out(new_run: Callable[..., Run], tmp_path: Path) -> None:
    run = new_run()
    assert run.records.load() == []
    train(run, [2.0, 1.0], num_epochs=2)
    whole = run.records.load()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"kind": "epoch", "epo')
    assert run.records.load() == whole
    run.load_state_dict(run.state_dict())
    train(run, [2.0, 1.0, 0.5], num_epochs=3)
    assert run.records.load()[:-1] == whole
    assert [record["epoch"] for record in run.records.load()] == [0, 1, 2], "the next line does not join the cut one"


def test_record_that_a_full_disk_cannot_take_is_kept(new_run: Callable[..., Run], tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full, a disk that is always full")
    path = tmp_path / "metrics.jsonl"
    path.symlink_to("/dev/full")
    run = new_run()
    train(run, [2.0], num_epochs=2)
    (problem,) = run.records.flush()
    assert "metrics.jsonl: cannot be written (No space left on device)" in problem
    state = run.state_dict()
    path.unlink()
    continued = new_run()
    continued.load_state_dict(json.loads(json.dumps(state)))
    assert [record["epoch"] for record in continued.records.load()] == [0], "the resume point brought it"
    train(run, [2.0, 1.0], num_epochs=2)
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [0, 0, 1]


def test_damaged_line_is_left_out(new_run: Callable[..., Run], tmp_path: Path) -> None:
    run = new_run()
    train(run, [2.0, 1.0], num_epochs=2)
    path = tmp_path / "metrics.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first[:20] + b"\xff" + first[21:] + second + b"[1]\n")
    assert [record["epoch"] for record in run.records.load()] == [1]


def test_numbers_that_json_does_not_know_are_null_in_the_record(new_run: Callable[..., Run], tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "epoch", "epoch": 0, "of_an_earlier_version": {"loss": NaN}}\n')
    run = new_run()
    run.epochs_done = 1
    run.load_state_dict(run.state_dict())
    run.record_test("test", {"loss": math.inf, "by_group": {"a": {"loss": math.nan}}})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    first, second = (json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines())
    assert first["of_an_earlier_version"] == {"loss": None}
    assert (second["loss"], second["by_group"]) == (None, {"a": {"loss": None}})


def test_continuation_is_noted_and_another_version_told(
    new_run: Callable[..., Run], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = new_run()
    run.write_provenance({"num_epochs": 2}, {}, {"world_size": 2, "versions": {"torch": "2.6.0", "python": "3.11.7"}})
    run.note_continuation({"num_epochs": 4}, {"world_size": 3, "versions": {"torch": "2.13.0", "python": "3.11.7"}})
    assert yaml.safe_load((tmp_path / "run.yaml").read_text()) == {"num_epochs": 4}, "what repeats the run as it ended"
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["world_size"] == 2
    assert [session["world_size"] for session in environment["continued"]] == [3]
    assert "continued with torch 2.13.0, the run began with 2.6.0" in caplog.text
    assert "python" not in caplog.text


def test_provenance_and_status(new_run: Callable[..., Run], tmp_path: Path) -> None:
    run = new_run()
    settings = {"seed": 3, "labels": None, "signers": ["s1", "أحمد"], "max_shift": 0.1, "resume": "no"}
    run.write_provenance(settings, {"bf16": {"enabled": True}}, {"data_fingerprint": "abc"})
    run.write_status("failed", reason="disk")
    assert yaml.safe_load((tmp_path / "run.yaml").read_text(encoding="utf-8")) == settings
    assert json.loads((tmp_path / "engine.json").read_text()) == {"bf16": {"enabled": True}}
    assert json.loads((tmp_path / "environment.json").read_text()) == {"data_fingerprint": "abc"}
    assert json.loads((tmp_path / "status.json").read_text()) == {
        "status": "failed", "epochs_done": 0, "reason": "disk"
    }  # fmt: skip
