"""Unit: a run's directory, its record, and how far it has come."""

import json
import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from cadences import cadence
from epochs import metrics, train

from ds_trainer.errors import WriteError
from ds_trainer.plots.curves import History
from ds_trainer.run import new_dir, run_dir
from ds_trainer.run.new_dir import new_run_dir
from ds_trainer.run.run_dir import Run


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
    with pytest.raises(WriteError, match=r"--runs_dir .*runs: cannot be written \(Not a directory\); .*choose another"):
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


def test_best_model_may_be_that_of_the_first_epoch(new_run: Callable[..., Run], tmp_path: Path) -> None:
    run = new_run()
    train(run, [1.0, 2.0], num_epochs=2)
    assert run.best_checkpoint == tmp_path / "best.pth"


@pytest.mark.parametrize(("status", "then"), [("running", "failed"), ("finished", "finished"), (None, None)])
def test_rank_that_outlives_the_master_says_that_a_running_run_failed(
    new_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str | None, then: str | None
) -> None:
    run, path = new_run(), tmp_path / "status.json"
    if status is not None:
        run.write_status(status)
    monkeypatch.setattr(run_dir, "_MASTER_FIRST_S", 0.0)
    monkeypatch.setenv("RANK", "1")
    run.write_failure("rank 0 is lost")
    assert (json.loads(path.read_text())["status"] if path.exists() else None) == then


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
