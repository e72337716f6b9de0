"""What a task of one's own draws is the same everywhere; what it does wrong is told before training."""

import json
import sys
from pathlib import Path

import pytest
from launching import ROOT, done_here, run_ranks, succeed, train_here
from own_tasks import Drawn

from ds_trainer import evaluate, job
from ds_trainer.objective import RESERVED_NAMES
from ds_trainer.settings import combined_settings
from ds_trainer.task import build_task

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
    done_here(evaluate.main, run_dir, *scored)
    results = json.loads((tmp_path / "scored.json").read_text())["results"]
    assert results == json.loads((run_dir / "status.json").read_text())["results"]


DRY_RUNS = """
import sys

import own_tasks

from ds_trainer import UserError, train

for name in sys.argv[2:]:
    print("=>", name)
    try:
        train(deepspeed_config=sys.argv[1], task=getattr(own_tasks, name), dry_run=True)
    except UserError as error:
        print("refused")
"""
BAD = {
    "Constant": "loss does not depend on the model's weights, expected one computed of its outputs; look for detach",
    "Texts": "the task's items: each target of a batch comes as tuple, expected a tensor: numbers in place of texts",
    "Unfinished": "class Unfinished: found no build_model, description, model_from, expected a method of each name",
    "Unset": "the task's val_set: missing, expected to be set in __init__",
    "Collated": "the task's collate: cannot be called with a list of items alone; write `collate = staticmethod(...)`",
    "TakenName": "summarise names a metric 'loss', which the record of a run uses for its own; give it another name",
    "NoNames": "summarise gives None, expected a dictionary by name",
    "NoNumber": "metric 'worst': found [1.0, 2.0], expected a number",
    "SeveralLabels": "the task's targets: found int64[8, 2], expected int64[B] as class_names asks for; leave",
    "FromOne": "the task's targets: found classes 1 to 2, expected 0 to 1, as the model scores 2; number them from 0",
    "OtherMeasures": "measure does not begin with what classification.measure gives (target, rank, prediction), as",
    "NamedOutputs": "the task's model: answers with dict, expected float[B, S] as class_names asks for; leave",
    "MakesBuffer": "what training saves cannot be read (KeyError: 'mask'), expected the weights and buffers",
}


@pytest.mark.slow
def test_what_validation_would_stumble_over_is_told_by_a_dry_run() -> None:
    good = ["Drawn", "Measuring", "Classes", "OfTheWhole"]
    output = succeed([sys.executable, "-c", DRY_RUNS, ROOT / "ds_configs" / "fp32.json", *BAD, *good])
    told = {name: lines for name, _, lines in (part.partition("\n") for part in output.split("=> ")[1:])}
    for name, problem in BAD.items():
        assert problem in told[name], told[name]
        assert "refused" in told[name]
    for name in good:
        assert "one step taken" in told[name], told[name]
    assert "fails on the first 8 validation examples (ValueError: too few examples)" in told["OfTheWhole"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Classes", "Measuring"])
def test_items_in_double_precision_and_metrics_that_are_tensors_are_scored(tmp_path: Path, name: str) -> None:
    task = ["--task", f"own_tasks:{name}"]
    train_here(*FLAGS, *task, "--runs_dir", tmp_path)
    (run_dir,) = tmp_path.iterdir()
    on = ["--on", "val", "--json", tmp_path / "scored.json"]
    done_here(evaluate.main, run_dir, *task, *on)
    status = json.loads((run_dir / "status.json").read_text())
    results = status["results"]
    assert json.loads((tmp_path / "scored.json").read_text())["results"] == results
    records = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    of_groups = {key for group in status["by_group"].values() for key in group}
    written = {key for record in records for key in record} | of_groups
    assert written - RESERVED_NAMES == results.keys() - {"loss"}, "a metric of another such name would replace it"


@pytest.mark.slow
def test_examples_whose_loss_is_not_finite_are_named(tmp_path: Path) -> None:
    flags = [*FLAGS, "--runs_dir", tmp_path, "--task"]
    refused = done_here(job.main, *flags, "own_tasks:BadValidation", status=2)
    assert (
        "epoch 1: the validation loss is nan, expected a finite number; it is that of 1 of 8 examples (5): look at"
        in refused
    )
    assert "last good state" not in refused, "there is none"
    warned = train_here(*flags, "own_tasks:BadTest")
    assert "the loss of 1 of 8 examples (5) is NaN or infinite, and so is their mean" in warned
