"""`--compile`: a run learns what it learns without, from two graphs that are compiled once."""

import json
import sys
from pathlib import Path

import pytest
from launching import run, succeed
from test_launch import assert_complete, only_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FLAGS = ["--deepspeed_config", "ds_configs/bf16.json", "--model_size", "t_1_1", "--num_frames", "8"]
GRAPHS = "graphs: "
MAIN = f"""
import sys
import torch._dynamo.utils
from ds_trainer.job import main
status = main()
print("{GRAPHS}", torch._dynamo.utils.counters["stats"]["unique_graphs"])
sys.exit(status)
"""


def trained(runs_dir: Path, *flags: str) -> tuple[list[dict[str, float]], int]:
    """The records of a run's epochs, and how many graphs it compiled."""
    command = [sys.executable, "-c", MAIN, *FLAGS, "--num_epochs", "3", "--runs_dir", runs_dir, *flags]
    output = succeed(command, timeout_s=500)
    lines = (only_run(runs_dir) / "metrics.jsonl").read_text().splitlines()
    epochs = [record for record in map(json.loads, lines) if record["kind"] == "epoch"]
    (graphs,) = [line for line in output.splitlines() if line.startswith(GRAPHS)]
    return epochs, int(graphs.removeprefix(GRAPHS))


def test_a_compiled_run_learns_the_same_and_compiles_once(tmp_path: Path) -> None:
    """The last micro-batch of each epoch is a shorter one, and training and validation alternate."""
    flags = ["--model", "st_transformer", "--num_members", "2", "--dropout", "0"]  # what dropout leaves out differs
    eager, graphs_of_eager = trained(tmp_path / "eager", *flags)
    compiled, graphs = trained(tmp_path / "compiled", *flags, "--compile")
    assert (graphs_of_eager, graphs) == (0, 2), "one for training, one for validation"
    for one, other in zip(eager, compiled, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=2e-3)
        assert other["val_loss"] == pytest.approx(one["val_loss"], rel=2e-3)


def test_a_compiled_run_with_dropout_can_be_profiled_and_used(tmp_path: Path) -> None:
    small = ["--model", "conv_transformer", "--num_members", "1", "--num_epochs", "1"]
    flags = [*small, "--compile", "--profile", "--runs_dir", tmp_path]
    succeed([sys.executable, "launch/train.py", *FLAGS, *flags], timeout_s=500)
    run_dir = only_run(tmp_path)
    assert_complete(run_dir, num_signs=26)
    assert "engine step" in (run_dir / "profile" / "summary.txt").read_text()


def test_without_a_compiler_it_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "launch/train.py", *FLAGS, "--compile", "--runs_dir", tmp_path]
    finished = run(command, env={"CXX": str(tmp_path / "none")})
    assert finished.returncode == 2
    assert "--compile: found no C++ compiler" in finished.stdout
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_compiled_is_told_without_pages_of_torch(tmp_path: Path) -> None:
    compiler = tmp_path / "broken-g++"
    compiler.write_text('#!/bin/sh\ncase "$1" in -*) exec g++ "$@"; esac\necho no such luck >&2\nexit 1\n')
    compiler.chmod(0o755)
    command = [sys.executable, "launch/train.py", *FLAGS, "--compile", "--runs_dir", tmp_path / "runs"]
    finished = run(command, env={"CXX": str(compiler), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "empty")})
    assert finished.returncode == 2, finished.stdout
    assert "error: torch.compile failed (InductorError: CppCompileError" in finished.stdout
    assert "leave out --compile" in finished.stdout
    assert "Traceback" not in finished.stdout
