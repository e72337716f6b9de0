"""What a task of one's own draws is the same everywhere; what it does wrong is told before training."""

import json
from pathlib import Path
from typing import Any

import pytest
from launching import ROOT, run_ranks, succeed
from own_tasks import Drawn

from ds_trainer.errors import TaskError
from ds_trainer.settings import combined_settings
from ds_trainer.task import Task, build_task

SETTINGS = combined_settings(Drawn.settings_type)(deepspeed_config=Path("unused"), task="own_tasks:Drawn")
FLAGS = ["--deepspeed_config", ROOT / "ds_configs" / "fp32.json", "--num_epochs", "2"]


def test_split_that_is_drawn_is_the_same_at_each_start_and_follows_the_seed() -> None:
    first, again = build_task(Drawn, SETTINGS), build_task(Drawn, SETTINGS)
    assert first.fingerprint() == again.fingerprint()
    assert build_task(Drawn, SETTINGS.model_copy(update={"seed": 1})).fingerprint() != first.fingerprint()
    read_again = Drawn.as_trained({"task": "own_tasks:Drawn", "settings": {"deepspeed_config": "unused"}})
    assert read_again is not None
    assert read_again.fingerprint() == first.fingerprint()


@pytest.mark.slow
def test_split_that_is_drawn_is_the_same_on_all_ranks_and_in_evaluation(tmp_path: Path) -> None:
    flags = [*FLAGS, "--task", "own_tasks:Drawn", "--runs_dir", tmp_path]
    run_ranks(ROOT / "launch" / "train.py", 2, flags)
    (run_dir,) = tmp_path.iterdir()
    scored = ["--task", "own_tasks:Drawn", "--on", "val", "--json", tmp_path / "scored.json"]
    succeed(["python", ROOT / "launch" / "evaluate.py", run_dir, *scored])
    results = json.loads((tmp_path / "scored.json").read_text())["results"]
    assert results == json.loads((run_dir / "status.json").read_text())["results"]


class Unfinished(Task):
    def __init__(self, settings: Any):
        pass

    def label(self) -> str:
        return "unfinished"


def test_methods_that_are_missing_are_told() -> None:
    with pytest.raises(TaskError, match="class Unfinished: found no build_model, description, model_from, expected"):
        build_task(Unfinished, SETTINGS)
