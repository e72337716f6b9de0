"""launch/evaluate.py on several ranks: what is wrong on one of them is told, whichever it is."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from launching import ROOT, ends_of_ranks, run

from ds_trainer.checkpoint import write_checkpoint
from ds_trainer.errors import SettingsError
from ds_trainer.evaluate import _must_be_told
from ds_trainer.settings import combined_settings
from ds_trainer.tasks.toy.task import ToySettings, ToyTask

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

OWN_TASK = """
from ds_trainer import distributed
from ds_trainer.errors import DataError
from ds_trainer.tasks.toy.task import ToyTask

class Own(ToyTask):
    def __init__(self, settings):
        if distributed.rank() == distributed.world_size() - 1:
            raise DataError("points.npz: missing, expected the data; copy it there")
        super().__init__(settings)
"""


@pytest.fixture
def of_own_task(tmp_path: Path) -> Path:
    """A checkpoint of a task that finds no data on the last rank, beside that task."""
    (tmp_path / "own.py").write_text(OWN_TASK)
    task = ToyTask(combined_settings(ToySettings)(deepspeed_config=Path("unused"), task="toy"))
    model = task.build_model()
    checkpoint: dict[str, Any] = {"task": "own:Own", "description": task.description(), "settings": {}}
    checkpoint |= {"epoch": 0, "metrics": {}, "engine_config": {"train_micro_batch_size_per_gpu": 8}, "versions": {}}
    checkpoint["settings"] = {"deepspeed_config": "unused"}
    write_checkpoint(tmp_path / "best.pth", {**checkpoint, "state_dict": model.state_dict()})
    return tmp_path / "best.pth"


def test_data_missing_on_one_host_is_told_by_the_master(of_own_task: Path) -> None:
    flags = [of_own_task, "--task", "own:Own"]
    ended = ends_of_ranks(ROOT / "launch" / "evaluate.py", 2, flags, timeout_s=120, cwd=of_own_task.parent)
    assert [status for status, _ in ended] == [2, 2], ended
    assert [line for _, output in ended for line in output.splitlines() if line.startswith("error: ")] == [
        line for line in ended[0][1].splitlines() if line.startswith("error: rank 1 on ")
    ]
    assert "points.npz: missing, expected the data; copy it there" in ended[0][1]
    assert not any("Traceback" in output for _, output in ended), ended


def test_where_the_run_was_started_is_told_when_data_is_missing_from_elsewhere(of_own_task: Path) -> None:
    """Relative paths of the run mean something else there; from where it was started, they do not."""
    run_dir = of_own_task.parent
    environment = {"data_fingerprint": "0123", "devices": {"type": "cpu"}, "versions": {}}
    for working_dir in ("/home/somebody", str(run_dir)):
        (run_dir / "environment.json").write_text(json.dumps({**environment, "working_dir": working_dir}))
        for path in (run_dir, of_own_task):
            command = [sys.executable, ROOT / "launch" / "evaluate.py", path, "--task", "own:Own"]
            output = run(command, cwd=run_dir).stdout
            assert "points.npz: missing" in output
            told = "error: the run was started in /home/somebody; start the evaluation there too" in output
            assert told == (working_dir == "/home/somebody")


@pytest.mark.parametrize(
    ("fingerprint", "told"),
    [("12 training, 4 validation, 4 test", []), ("", []), ("9 training", ["the data is not that of the training"])],
)
def test_other_data_is_told_where_a_checkpoint_says_which_it_had(fingerprint: str, told: list[str]) -> None:
    task = ToyTask(combined_settings(ToySettings)(deepspeed_config=Path("unused"), num_points=20))
    assert _must_be_told(task, task.val_set, {"data_fingerprint": fingerprint}, adapts=False) == told


def test_scores_of_adapted_models_are_told_apart(tmp_path: Path) -> None:
    task = ToyTask(combined_settings(ToySettings)(deepspeed_config=Path("unused"), num_points=20))
    of_its_own = _must_be_told(task, task.val_set, {"adapted_to": 7}, adapts=False)
    assert of_its_own == ["the model, or one it began with, was adapted to 7 examples, which may be among these"]
    known = {"task": "toy", "description": {}, "state_dict": {}, "settings": {}, "engine_config": {}, "epoch": 0}
    write_checkpoint(tmp_path / "ann.pth", {**known, "adapted_to": 7})
    began_with = _must_be_told(task, task.val_set, {"settings": {"pretrained": f"{tmp_path}/ann.pth"}}, adapts=False)
    assert began_with == of_its_own
    task.class_names = None
    with pytest.raises(SettingsError, match=r"^--adapt: the task has no classes"):
        _must_be_told(task, task.val_set, {}, adapts=True)
    task.class_names = ["one", "two"]
    (told,) = _must_be_told(task, task.val_set, {}, adapts=True)
    assert "by a model adapted to the other half" in told
