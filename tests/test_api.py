"""The public names are there, documented, cheap to import, and on their page."""

import subprocess
import sys
from pathlib import Path

import pytest
from launching import ROOT, clean_environment

import ds_trainer
from ds_trainer.settings import combined_settings
from ds_trainer.tasks.toy.task import ToySettings, ToyTask


@pytest.mark.parametrize("name", ds_trainer.__all__)
def test_name_is_there_documented_and_on_the_page(name: str) -> None:
    value = getattr(ds_trainer, name)
    assert value.__doc__, name
    assert f"`{name}`" in (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


def test_public_names_are_all_that_a_program_needs_to_score_a_model() -> None:
    settings = combined_settings(ToySettings)(deepspeed_config=Path("unused"), task="toy", num_points=100)
    task = ToyTask(settings)
    metrics = ds_trainer.validate(
        task.build_model(), task.objective, ds_trainer.in_order(task, task.test_set, micro_batch=8)
    )
    assert len(metrics.losses_N) == 20
    assert 0 <= metrics.named["top1"] <= 1


def test_unknown_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        _ = ds_trainer.Trainer


def test_import_brings_nothing_along() -> None:
    code = "import sys, ds_trainer; print([m for m in ('torch', 'numpy', 'deepspeed') if m in sys.modules])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
