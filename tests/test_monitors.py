"""Monitors of the engine config: the numbers of metrics.jsonl under its names, whatever becomes of the monitor."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from launching import ROOT, succeed, torchrun

from ds_trainer.engine.config import check_engine_config
from ds_trainer.engine.monitors import events_of, start_monitors, without_monitors
from ds_trainer.errors import SettingsError


def config_with(path: Path, **blocks: Any) -> Path:
    config = json.loads((ROOT / "ds_configs" / "bf16.json").read_text())
    path.write_text(json.dumps({**config, **blocks}))
    return path


def records_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_events_are_the_numbers_of_a_record() -> None:
    record = {
        "kind": "epoch",
        "epoch": 2,
        "step": 30,
        "val_loss": 0.5,
        "seconds": 3,
        "split": "test",
        "grad_norm": None,
    }
    assert list(events_of(record)) == [("epoch/val_loss", 0.5, 30), ("epoch/seconds", 3.0, 30)]


def test_engine_itself_monitors_nothing() -> None:
    config = {"bf16": {"enabled": True}, "tensorboard": {"enabled": True}, "wandb": {"enabled": False}}
    assert without_monitors(config) == {"bf16": {"enabled": True}}


def test_problems_are_told_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads((ROOT / "ds_configs" / "bf16.json").read_text())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    problems = check_engine_config({**config, "comet": {"enabled": True, "api_key": "secret"}}, 1, "cpu")
    assert [problem.split(":")[1].strip() for problem in problems] == ["comet.enabled", "comet.api_key"]
    assert not any("secret" in problem.replace("a secret", "") for problem in problems)
    assert check_engine_config({**config, "csv_monitor": {"enabled": True}}, 1, "cpu") == []


@pytest.fixture
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed's monitors ask it for the rank, which it knows once an engine was built."""
    monkeypatch.setattr("deepspeed.comm.get_rank", lambda: 0)


@pytest.mark.usefixtures("one_rank")
def test_monitor_that_cannot_start_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    block = {"enabled": True, "output_path": str(tmp_path / "file")}
    with pytest.raises(SettingsError, match=r"csv_monitor: cannot be started .*Not a directory"):
        start_monitors({"csv_monitor": block}, tmp_path)


@pytest.mark.usefixtures("one_rank", "unused_log")
def test_monitor_that_fails_later_is_told_once(tmp_path: Path, caplog: Any) -> None:
    write = start_monitors({"csv_monitor": {"enabled": True}}, tmp_path)
    write({"kind": "step", "step": 1, "loss": 2.0})
    folder = tmp_path / "csv_monitor"
    folder.rename(tmp_path / "away")
    folder.write_text("no folder")
    for step in (2, 3):
        write({"kind": "step", "step": step, "loss": 1.0})
    assert caplog.text.count("training goes on without") == 1
    folder.unlink()
    (tmp_path / "away").rename(folder)
    write({"kind": "step", "step": 4, "loss": 0.5})
    assert (folder / "step_loss.csv").read_text().split() == ["step,loss", "1,2.0", "4,0.5"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_two_ranks_write(tmp_path: Path) -> None:
    """TensorBoard and CSV files hold each number of metrics.jsonl once, also after the run was continued."""
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = config_with(tmp_path / "engine.json", tensorboard={"enabled": True}, csv_monitor={"enabled": True})
    runs_dir = tmp_path / "runs"
    toy = ["launch/train.py", "--deepspeed_config", config, "--task", "toy", "--num_points", "1500"]
    succeed([*torchrun(2), *toy, "--runs_dir", runs_dir, "--num_epochs", "2"])
    (run_dir,) = runs_dir.iterdir()
    succeed([*torchrun(2), *toy, "--resume", run_dir, "--num_epochs", "3"])
    epochs = {record["step"]: record for record in records_of(run_dir) if record["kind"] == "epoch"}
    assert len(epochs) == 3
    with (run_dir / "csv_monitor" / "epoch_val_loss.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["step", "val_loss"]
    assert {int(step): float(value) for step, value in rows[1:]} == {
        step: record["val_loss"] for step, record in epochs.items()
    }
    events = event_accumulator.EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    assert {"step/loss", "step/grad_norm", "epoch/val_loss", "epoch/top1", "test/top1"} <= set(events.Tags()["scalars"])
    assert not any(tag.startswith("Train/") for tag in events.Tags()["scalars"])
    for event in events.Scalars("epoch/val_loss"):
        assert event.value == pytest.approx(epochs[event.step]["val_loss"], rel=1e-6)
    assert list(tmp_path.iterdir()) in ([config, runs_dir], [runs_dir, config]), "nothing is written elsewhere"
