"""Unit: the lines of `metrics.jsonl`, through cuts, damage and full disks."""

import errno
import json
import math
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import pytest
import torch
from cadences import cadence
from epochs import PlainEngine, metrics, train

from ds_trainer.run import records
from ds_trainer.run.records import Records
from ds_trainer.run.run_dir import Run


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., Run]:
    return lambda **options: Run(tmp_path, {}, cadence(**options))


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


def test_half_a_line_that_a_disk_took_is_taken_back_and_the_failure_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Records(tmp_path / "metrics.jsonl")
    kept.append(kind="step", step=1)

    def take_a_part(file: FileIO, content: bytes) -> None:
        file.write(content[:7])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(records, "_write_all", take_a_part)
        kept.append(kind="step", step=2)
        kept.append(kind="step", step=3)
    assert caplog.text.count("No space left on device") == 1
    assert kept.path.read_text() == '{"kind": "step", "step": 1}\n'
    assert [record["step"] for record in kept.load()] == [1, 2, 3]
    kept.append(kind="step", step=4)
    assert [json.loads(line)["step"] for line in kept.path.read_text().splitlines()] == [1, 2, 3, 4]


def test_record_that_a_resume_point_kept_and_that_was_written_after_all_is_there_once(tmp_path: Path) -> None:
    kept = Records(tmp_path / "metrics.jsonl")
    kept.append(kind="step", step=1)
    kept.keep(lambda record: True, unwritten=[{"kind": "step", "step": 1}, {"kind": "step", "step": 2}])
    assert [record["step"] for record in kept.load()] == [1, 2]


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
