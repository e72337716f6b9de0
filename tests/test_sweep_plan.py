"""Which trainings a sweep takes for its own: those of its settings and of its data, wherever that lies."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import to_jsonable_python

from ds_trainer.cross_validation.folds import Fold, folds_of
from ds_trainer.cross_validation.plan import Plan
from ds_trainer.cross_validation.sweep import finished_run
from ds_trainer.errors import CheckpointError, SettingsError
from ds_trainer.files import write_json, write_yaml
from ds_trainer.settings import combined_settings
from ds_trainer.tasks.sign.settings import SignSettings


def plan(**changed: Any) -> Plan:
    settings = combined_settings(SignSettings)(
        **{"deepspeed_config": "a.json", "data": "own", "num_epochs": 3, "signers": "s1,s2"} | changed
    )
    return Plan(settings, {"optimizer": {}}, {"optimizer": {"type": "AdamW"}}, "abc", 2)


def test_sweep_is_one_of_its_settings_and_of_its_data_wherever_that_lies(tmp_path: Path) -> None:
    plan().claim(tmp_path)
    moved = plan(data="/elsewhere/own", labels="names.txt", config="same.yaml", deepspeed_config="b.json", seed=3)
    moved.claim(tmp_path)
    assert moved.dir_in(tmp_path) == plan().dir_in(tmp_path)
    assert plan().dir_in(tmp_path).parent == tmp_path
    for other, told in (
        (plan(num_epochs=4, dropout=0.1), "dropout, num_epochs differ"),
        (plan(early_stopping_epochs=2), "early_stopping_epochs differ"),
        (replace(plan(), num_groups=3), "folds differ"),
        (replace(plan(), data_fingerprint="xyz"), "data_fingerprint differ"),
        (replace(plan(), engine_config={}), "engine_config differ"),
    ):
        with pytest.raises(SettingsError, match=f"plan.json: holds a sweep of other settings: {told}; choose another"):
            other.claim(tmp_path)
        assert other.dir_in(tmp_path) != plan().dir_in(tmp_path)


def test_folds_that_were_trained_otherwise_are_refused_all_at_once(tmp_path: Path) -> None:
    folds = folds_of(["s1", "s2", "s3", "s4", "s5"], None, 1, first_seed=7)

    def train(fold: Fold, made_by: Plan, status: str = "finished", **told: str) -> None:
        settings = made_by.settings.model_copy(update={"split": fold.split, "seed": 7, "data": "elsewhere", **told})
        run_dir = fold.dir_in(tmp_path) / "run"
        run_dir.mkdir(parents=True)
        write_yaml(run_dir / "run.yaml", to_jsonable_python(settings))
        write_json(run_dir / "engine.json", made_by.resolved_config)
        write_json(run_dir / "environment.json", {"world_size": 1, "data_fingerprint": made_by.data_fingerprint})
        write_json(run_dir / "status.json", {"status": status})

    train(folds[0], plan())
    train(folds[1], replace(plan(), data_fingerprint="xyz"), status="stopped")
    plan().refuse_others(folds, tmp_path)
    train(folds[2], replace(plan(), data_fingerprint="xyz"))
    train(folds[3], plan(num_frames=20, num_epochs=4), split="signer:s1")
    train(folds[4], replace(plan(), resolved_config={"optimizer": {"type": "SGD"}}))
    with pytest.raises(SettingsError) as refused:
        plan().refuse_others(folds, tmp_path)
    remedy = (
        "delete that run directory, and train the fold again on the data of the others, or choose another --sweep_dir"
    )
    assert [problem.partition(" is no run of this sweep: ")[::2] for problem in refused.value.problems] == [
        (
            f"{fold}: {fold.dir_in(tmp_path) / 'run'}",
            f"{differing}; expected what {tmp_path / 'plan.json'} says; {remedy}",
        )
        for fold, differing in zip(
            folds[2:],
            [
                "data fingerprint was xyz, now abc",
                "split was signer:s1, now signer:s4; num_frames was 20, now 50; num_epochs was 4, now 3",
                "engine config was {'optimizer': {'type': 'SGD'}}, now {'optimizer': {'type': 'AdamW'}}",
            ],
            strict=True,
        )
    ]


@pytest.mark.parametrize(
    "content", ["", "[]", "3", "{}", '{"settings": 3}', '{"settings": null}', "[" * 10**5, '{"status": ', "\xff"]
)
def test_a_damaged_file_of_a_sweep_is_told_in_one_line(tmp_path: Path, content: str) -> None:
    fold = Fold(("s1",), 0)
    for path in (tmp_path / "plan.json", fold.dir_in(tmp_path) / "run" / "status.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "latin-1")
    with pytest.raises(SettingsError, match=r"plan\.json: (is no plan of a sweep|holds a sweep of other)"):
        plan().claim(tmp_path)
    if not content.endswith("}"):
        with pytest.raises(CheckpointError, match=r"status\.json: cannot be read .*; delete its folder"):
            finished_run(fold, tmp_path)
