"""Paths that may not be looked at, or that cannot be any: told in one line, whichever command is given them."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ds_trainer.errors import CheckpointError, UserError
from ds_trainer.report.runs import find_runs
from ds_trainer.run.resume import run_to_continue
from ds_trainer.run.resume_points import newest_resume_point
from ds_trainer.source import load_source
from ds_trainer.tasks.sign.unlabelled import clips_in


def told_of_clips(path: Path) -> None:
    [(_, error)] = clips_in(path)
    assert isinstance(error, UserError)
    raise error


LOOK: dict[str, Callable[[Path], Any]] = {
    "predict.py RUN PATH": told_of_clips,
    "predict.py, evaluate.py, export.py, --pretrained": load_source,
    "compare.py": lambda path: find_runs([path]),
    "--resume PATH": lambda path: run_to_continue(str(path), Path("runs"), lambda ranks: {}),
    "--runs_dir PATH --resume auto": lambda path: run_to_continue("auto", path, lambda ranks: {}),
}


@pytest.mark.parametrize("look", LOOK.values(), ids=LOOK.keys())
@pytest.mark.usefixtures("rights_hold")
def test_path_that_cannot_be_looked_at(tmp_path: Path, look: Callable[[Path], Any]) -> None:
    private = tmp_path / "private"
    (private / "run").mkdir(parents=True)
    private.chmod(0)
    for path, reason in ((private / "run", "Permission denied"), (tmp_path / ("x" * 300), "File name too long")):
        with pytest.raises(UserError) as caught:
            look(path)
        [problem] = caught.value.problems
        assert str(path) in problem
        assert reason in problem


BELOW: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "compare.py FOLDER": ("seed_0", lambda folder: find_runs([folder])),
    "--resume RUN": ("resume", lambda run_dir: newest_resume_point(run_dir / "resume")),
}


@pytest.mark.parametrize(("name", "look"), BELOW.values(), ids=BELOW.keys())
@pytest.mark.usefixtures("rights_hold")
def test_folder_in_it_that_cannot_be_looked_into_is_told_and_not_taken_for_empty(
    tmp_path: Path, name: str, look: Callable[[Path], Any]
) -> None:
    (tmp_path / name).mkdir(mode=0)
    with pytest.raises(UserError, match=f"{name}: cannot be looked at .Permission denied"):
        look(tmp_path)


@pytest.mark.usefixtures("rights_hold")
def test_link_in_a_folder_of_runs_to_what_may_not_be_looked_at_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir(mode=0)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "elsewhere").symlink_to(tmp_path / "private" / "run")
    assert run_to_continue("auto", tmp_path / "runs", lambda ranks: {}) is None


@pytest.mark.usefixtures("rights_hold")
@pytest.mark.parametrize("mode", [0o000, 0o500])
def test_closed_run_of_another_user_in_a_shared_folder_is_passed_over(
    tmp_path: Path, mode: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ds_trainer")
    run_dir = tmp_path / "2026-01-01_00-00-00-toy"
    (run_dir / "resume" / "epoch_0001-step_00000010").mkdir(parents=True)
    for name, text in {
        "run.yaml": "seed: 3",
        "engine.json": "{}",
        "environment.json": '{"data_fingerprint": "abc", "world_size": 1}',
        "status.json": '{"status": "running"}',
    }.items():
        (run_dir / name).write_text(text)
    identity = {"seed": 3, "engine config": {}, "data fingerprint": "abc"}
    assert run_to_continue("auto", tmp_path, lambda ranks: identity) == run_dir
    run_dir.chmod(mode)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert run_to_continue("auto", tmp_path, lambda ranks: identity) is None
    assert caplog.messages == [
        f"note: {run_dir} is another user's (number {owner}), and not open to this one: not continued"
    ]
    with pytest.raises(CheckpointError, match="found no unfinished run"):
        run_to_continue("must", tmp_path, lambda ranks: identity)
    run_dir.chmod(0o700)
