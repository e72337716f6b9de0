"""What is wrong with a bad batch's files is told without a traceback, and nothing in them is run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bad_batch import TASK, edit, first, save_bad_batch

from ds_trainer.checkpoint import load_checkpoint, write_checkpoint
from ds_trainer.replay.command import main

DAMAGES: dict[str, Callable[[Any], Any]] = {
    "step: missing": lambda batch: batch.pop("step"),
    "seed: found -1": lambda batch: batch.update(seed=-1),
    "epoch: found '1'": lambda batch: batch.update(epoch="1"),
    "stepp: unknown name; did you mean 'step'": lambda batch: batch.update(stepp=3),
    "micro_steps: found none": lambda batch: batch.update(micro_steps=[]),
    "found 6 names, num_real 9, 8 indices": lambda batch: first(batch).update(num_real=9),
    "micro_steps.0.indices.0: found -1": lambda batch: first(batch).update(indices=[-1] * 8),
    "clip number 99": lambda batch: first(batch)["indices"].__setitem__(7, 99),
    "share: found 1e-320": lambda batch: first(batch).update(share=1e-320),
    "world_size: found": lambda batch: batch.update(world_size=10**4000),
}


@pytest.mark.parametrize("problem", DAMAGES)
def test_damaged_batch_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], problem: str) -> None:
    folder = save_bad_batch(tmp_path, "none")
    edit(folder / "batch.json", DAMAGES[problem])
    assert main([str(folder), "--task", TASK]) == 2
    assert problem in capsys.readouterr().out


def test_all_problems_of_a_damaged_batch_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_bad_batch(tmp_path, "none")
    edit(folder / "batch.json", lambda batch: batch.update({f"unknown_{number}": 0 for number in range(50)}))
    assert main([str(folder), "--task", TASK]) == 2
    *problems, last = capsys.readouterr().out.splitlines()
    assert len(problems) == 20
    assert "and 30 more problems" in last


def test_path_that_does_not_exist_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert main([str(tmp_path)]) == 2
    first, second = capsys.readouterr().out.splitlines()
    assert f"{tmp_path / 'nowhere'}: missing; expected a folder such as" in first
    assert f"{tmp_path}: no bad batch (no batch.json); expected a folder such as" in second


@pytest.mark.parametrize("name", ["batch.json", "weights.pth"])
def test_file_that_is_cut_short_missing_or_no_file_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = save_bad_batch(tmp_path, "none")
    path = folder / name
    whole = path.read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:length])
        assert main([str(folder), "--task", TASK]) == 2
    path.write_bytes(b'{"seed": NaN' + b"[" * 100_000)
    assert main([str(folder), "--task", TASK]) == 2
    path.unlink()
    assert main([str(folder), "--task", TASK]) == 2
    path.mkdir()
    assert main([str(folder), "--task", TASK]) == 2
    assert capsys.readouterr().out.count(f"{folder}") == 7


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"settings": {"fualt": "none"}}, "fualt"),
        ({"settings": [1]}, "settings: found list, expected dict"),
        ({"engine_config": {"bf16": 3}}, "bf16: found 3"),
        ({"engine_config": {"torch_autocast": {"enabled": True, "dtype": "x"}}}, "torch_autocast.dtype"),
        ({"settings": {"seed": torch.zeros(1)}}, "no plain value"),
        ({"state_dict": {}}, "state_dict"),
        ({"description": {}}, "description"),
        ({"task": "toy"}, "expected 'faulty_task:FaultyTask' as --task says"),
    ],
)
def test_weights_of_something_else_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], problem: str
) -> None:
    folder = save_bad_batch(tmp_path, "none")
    content = load_checkpoint(folder / "weights.pth")
    write_checkpoint(folder / "weights.pth", {**content, **change})
    assert main([str(folder), "--task", TASK]) == 2
    assert problem in capsys.readouterr().out


def test_wrong_paths_and_numbers_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_bad_batch(tmp_path, "none")
    for path in (tmp_path, folder.parent, folder / "batch.json", tmp_path / "bad_batches" / "step_00000004"):
        assert main([str(path)]) == 2
        assert f"there is {folder}" in capsys.readouterr().out
    assert main(["nowhere"]) == 2
    assert "expected a folder such as RUN/bad_batches/step_" in capsys.readouterr().out
    assert main([str(folder), "--task", TASK, "--micro_step", "4"]) == 2
    assert "found 4, expected one of 0" in capsys.readouterr().out


def test_module_is_not_imported_because_a_file_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_bad_batch(tmp_path, "none")
    assert main([str(folder)]) == 2
    assert f"add --task {TASK}, if you know it" in capsys.readouterr().out
