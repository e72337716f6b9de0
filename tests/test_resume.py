"""Unit: which run `--resume` means."""

import json
import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from cadences import cadence

from ds_trainer.errors import CheckpointError, SettingsError
from ds_trainer.run.resume import engine_config_on, refuse_lagging_master, run_to_continue
from ds_trainer.run.run_dir import Run

SETTINGS = {"task": "toy", "seed": 3, "max_shift": 0.1, "signers": [], "labels": None}
ENGINE = {"bf16": {"enabled": True}, "optimizer": {"type": "AdamW", "params": {"lr": 0.001, "betas": [0.9, 0.99]}}}
IDENTITY = {**SETTINGS, "engine config": ENGINE, "data fingerprint": "abc"}
MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Writes a run directory as a job leaves it; extra settings are those that do not make the run what it is."""

    def make(name: str, status: str = "running", has_resume_point: bool = True, **changed: Any) -> Path:
        run_dir = tmp_path / "runs" / name
        run_dir.mkdir(parents=True)
        run = Run(run_dir, {}, cadence())
        settings = {**SETTINGS, "num_epochs": 50, "verbose": False, **changed}
        run.write_provenance(settings, ENGINE, {"data_fingerprint": "abc", "host": "here", "world_size": 2})
        run.write_status(status)
        if has_resume_point:
            (run_dir / "resume" / "epoch_0001-step_00000010").mkdir(parents=True)
        return run_dir

    return make


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def test_never_looks_at_nothing(make_run: MakeRun, runs_dir: Path) -> None:
    make_run("2026-01-01_00-00-00-toy")
    assert run_to_continue("never", runs_dir, lambda ranks: IDENTITY) is None


def test_unfinished_run_of_other_data_is_told(
    make_run: MakeRun, runs_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("ds_trainer"), "propagate", True)
    caplog.set_level(logging.INFO, "ds_trainer")
    make_run("2026-01-01_00-00-00-toy")
    newest = make_run("2026-01-02_00-00-00-toy")
    make_run("2026-01-03_00-00-00-toy", status="finished")
    assert run_to_continue("auto", runs_dir, lambda ranks: IDENTITY | {"data fingerprint": "other"}) is None
    assert caplog.messages == [f"note: {newest} is unfinished, but data fingerprint was abc, now other: not continued"]
    caplog.clear()
    assert run_to_continue("auto", runs_dir, lambda ranks: IDENTITY) == newest
    assert caplog.messages == []


@pytest.mark.parametrize("resume", ["auto", "must"])
def test_newest_unfinished_run_of_the_same_settings(make_run: MakeRun, runs_dir: Path, resume: str) -> None:
    make_run("2026-01-01_00-00-00-toy")
    expected = make_run("2026-01-02_00-00-00-toy", status="failed", num_epochs=3)
    make_run("2026-01-03_00-00-00-toy", status="finished")
    make_run("2026-01-04_00-00-00-toy", seed=4)
    make_run("2026-01-05_00-00-00-toy", has_resume_point=False)
    (make_run("2026-01-06_00-00-00-toy") / "status.json").unlink()
    (make_run("2026-01-07_00-00-00-toy") / "run.yaml").write_text("a: [")
    (make_run("2026-01-08_00-00-00-toy") / "engine.json").write_text('{"bf16"')
    (runs_dir / "notes").mkdir()
    assert run_to_continue(resume, runs_dir, lambda ranks: IDENTITY) == expected


def written_at(run_dir: Path, seconds: float) -> Path:
    os.utime(run_dir / "resume" / "epoch_0001-step_00000010", (seconds, seconds))
    return run_dir


def test_run_that_was_saved_last_is_continued_whatever_the_clock_said_when_it_began(
    make_run: MakeRun, runs_dir: Path
) -> None:
    """As in the night in which the clock is put back an hour."""
    written_at(make_run("2026-10-25_02-50-00-toy"), 1000)
    expected = written_at(make_run("2026-10-25_02-10-00-toy"), 2000)
    assert run_to_continue("auto", runs_dir, lambda ranks: IDENTITY) == expected


Point = tuple[str, str, float]
OLD = ("2026-10-25_02-50-00-toy", "epoch_0002-step_00000009", 1000.0)
NEW = ("2026-10-25_02-10-00-toy", "epoch_0001-step_00000005", 2000.0)


@pytest.mark.parametrize(
    ("own", "others", "is_refused"),
    [
        (NEW, OLD, False),
        (OLD, NEW, True),
        (None, OLD, True),
        (OLD, None, False),
        (None, None, False),
        (OLD, (*OLD[:2], 3000.0), False),
        (OLD, (OLD[0], "epoch_0003-step_00000012", 500.0), True),
    ],
    ids=["older", "newer", "none here", "none there", "none", "a copy", "further"],
)
def test_host_that_holds_a_later_resume_point_than_the_master_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: Point | None, others: Point | None, is_refused: bool
) -> None:
    def on_disk(host: str, point: Point | None) -> Path | None:
        if point is None:
            return None
        name, place, seconds = point
        (tmp_path / host / name / "resume" / place).mkdir(parents=True)
        os.utime(tmp_path / host / name / "resume" / place, (seconds, seconds))
        return tmp_path / host / name

    def gather(values: list[Any], value: Any) -> None:
        values[:] = [value, type(value).by(on_disk("other", others))]

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.all_gather_object", gather)
    told = pytest.raises(CheckpointError, match="expected the latest there") if is_refused else nullcontext()
    with told:
        refuse_lagging_master(on_disk("master", own), lambda: None)
    monkeypatch.undo()  # before the fixture that looks for a process group


@pytest.mark.parametrize("changed", [{"data fingerprint": "other"}, {"engine config": {}}, {"max_shift": 0.2}])
def test_run_of_another_identity_is_not_continued(make_run: MakeRun, runs_dir: Path, changed: dict[str, Any]) -> None:
    make_run("2026-01-01_00-00-00-toy")
    assert run_to_continue("auto", runs_dir, lambda ranks: IDENTITY) is not None
    assert run_to_continue("auto", runs_dir, lambda ranks: IDENTITY | changed) is None


def test_auto_starts_afresh_where_must_fails(runs_dir: Path) -> None:
    assert run_to_continue("auto", runs_dir, lambda ranks: IDENTITY) is None
    with pytest.raises(CheckpointError, match=r"runs: found no unfinished run .* start one with --resume never"):
        run_to_continue("must", runs_dir, lambda ranks: IDENTITY)


def test_path_continues_also_a_finished_run(make_run: MakeRun, runs_dir: Path) -> None:
    run_dir = make_run("2026-01-01_00-00-00-toy", status="finished")
    make_run("2026-01-02_00-00-00-toy")
    assert run_to_continue(str(run_dir), runs_dir, lambda ranks: IDENTITY) == run_dir


def test_path_of_a_run_of_other_settings_lists_the_differences(make_run: MakeRun, runs_dir: Path) -> None:
    run_dir = make_run("2026-01-01_00-00-00-toy", seed=4, signers=["s1"])
    engine = {**ENGINE, "optimizer": {"type": "AdamW", "params": {"lr": 0.01, "betas": [0.9, 0.99]}}}
    with pytest.raises(SettingsError) as caught:
        run_to_continue(
            str(run_dir), runs_dir, lambda ranks: IDENTITY | {"engine config": engine, "data fingerprint": "xyz"}
        )
    remedy = (
        "give the settings it was made with, or start afresh with --resume never; "
        f"--pretrained {run_dir} begins a new run on other data with its weights"
    )
    changes = [
        "seed was 4, now 3",
        "signers was ['s1'], now []",
        "engine config was {'optimizer': {'params': {'lr': 0.001}}}, now {'optimizer': {'params': {'lr': 0.01}}}",
        "data fingerprint was abc, now xyz",
    ]
    assert caught.value.problems == [f"--resume {run_dir}: {change}; {remedy}" for change in changes]


def test_path_that_is_no_run(make_run: MakeRun, runs_dir: Path) -> None:
    for path in ("atuo", runs_dir / "absent"):
        with pytest.raises(CheckpointError, match=r"is no run directory .* expected auto, must, never or a path"):
            run_to_continue(str(path), runs_dir, lambda ranks: IDENTITY)


@pytest.mark.parametrize("name", ["run.yaml", "engine.json", "environment.json"])
@pytest.mark.parametrize("content", [None, "", '{"bf16": ['], ids=["absent", "empty", "cut off"])
def test_path_of_a_damaged_run(make_run: MakeRun, runs_dir: Path, name: str, content: str | None) -> None:
    run_dir = make_run("2026-01-01_00-00-00-toy")
    if content is None:
        (run_dir / name).unlink()
    else:
        (run_dir / name).write_text(content)
    with pytest.raises(CheckpointError, match=r"2026-01-01_00-00-00-toy(: cannot read what| is no run directory)"):
        run_to_continue(str(run_dir), runs_dir, lambda ranks: IDENTITY)
    assert run_to_continue("auto", runs_dir, lambda ranks: IDENTITY) is None


def engine_config_of(run_dir: Path, batch: int, micro_batch: int) -> Path:
    sizes = {"train_batch_size": batch, "train_micro_batch_size_per_gpu": micro_batch}
    (run_dir / "engine.json").write_text(json.dumps({**sizes, "gradient_accumulation_steps": 1}))
    return run_dir


@pytest.mark.parametrize(
    ("batch", "micro_batch", "world_size", "expected"),
    [(48, 24, 2, (24, 1)), (48, 24, 1, (24, 2)), (48, 24, 3, (16, 1)), (64, 48, 1, (32, 2)), (6, 1, 3, (1, 2))],
)
def test_another_world_size_keeps_the_global_batch(
    tmp_path: Path, batch: int, micro_batch: int, world_size: int, expected: tuple[int, int]
) -> None:
    config = engine_config_on(engine_config_of(tmp_path, batch, micro_batch), world_size)
    assert (config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]) == expected
    assert config["train_batch_size"] == batch == expected[0] * expected[1] * world_size


def test_world_size_that_cannot_share_the_global_batch(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"48 clips .* 5 ranks; continue on 1, 2, 3, 4, 6, 8 ranks.* 45 or 50"):
        engine_config_on(engine_config_of(tmp_path, 48, 24), 5)
    with pytest.raises(SettingsError, match=r"a global batch of 3$"):
        engine_config_on(engine_config_of(tmp_path, 2, 1), 3)


def test_batch_sizes_are_compared_as_the_ranks_of_the_run_had_them(make_run: MakeRun, runs_dir: Path) -> None:
    run_dir = make_run("2026-01-01_00-00-00-toy")
    asked: list[int] = []

    def identity_at(ranks: int) -> dict[str, Any]:
        asked.append(ranks)
        return IDENTITY

    assert run_to_continue(str(run_dir), runs_dir, identity_at) == run_dir
    assert asked == [2]
