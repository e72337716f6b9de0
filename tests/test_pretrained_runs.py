"""Runs that begin with the weights of another."""

import shutil
import sys
from pathlib import Path

import pytest
from launching import succeed, torchrun, train_here, val_losses


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_run_begins_where_the_other_ended_and_goes_on_without_it(tmp_path: Path) -> None:
    """On two ranks and at ZeRO-3, too; what a run goes on with is in its resume point."""
    former, runs = tmp_path / "former", tmp_path / "runs"
    train = ["--task", "toy", "--num_points", "2000", "--plateau_patience", "9"]
    bf16 = ["--deepspeed_config", "ds_configs/bf16.json"]
    train_here(*train, *bf16, "--num_epochs", "3", "--runs_dir", former)
    zero3 = ["--deepspeed_config", "ds_configs/bf16_zero3.json"]
    again = ["launch/train.py", *train, *zero3, "--pretrained", *former.glob("*/")]
    output = succeed([*torchrun(2), *again, "--num_epochs", "1", "--runs_dir", runs])
    assert output.count("8 of 8 weights are the model's, 100 % of its numbers") == 1
    (run_dir,) = runs.glob("*/")
    assert val_losses(run_dir)[0] < val_losses(*former.glob("*/"))[-1]
    shutil.rmtree(former)
    succeed([sys.executable, *again, "--num_epochs", "2", "--resume", run_dir])
    assert len(val_losses(run_dir)) == 2
