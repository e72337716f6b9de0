"""Unit: what can be asked of the sign task, and what is told to who asks for something else."""

from pathlib import Path
from typing import Any

import pytest

from ds_trainer.command_line import load_settings
from ds_trainer.errors import SettingsError
from ds_trainer.task import load_task_type
from ds_trainer.tasks.sign.models import MODELS

START = ["--deepspeed_config", "engine.json", "--data", "clips.npz"]


def load(*argv: str) -> dict[str, Any]:
    return load_settings([*START, *argv], load_task_type).model_dump()


def problems(*argv: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(*argv)
    return caught.value.problems


def test_flags_of_the_main_job() -> None:
    settings = load(
        "--signers", "s1,s2", "--selected_signs_from", "3", "--selected_signs_to", "502", "--num_epochs", "50",
        "--model", "bilstm", "--model_size", "m_2_3", "--val_fraction", "0.2", "--split", "signer:s9,s10",
        "--seed", "4", "--runs_dir", "there", "--labels", "names.txt", "--val_by", "signer",
    )  # fmt: skip
    given = {
        "task": "sign", "data": "clips.npz", "signers": ("s1", "s2"), "selected_signs_from": 3,
        "selected_signs_to": 502, "num_epochs": 50, "model": "bilstm", "model_size": "m_2_3", "val_fraction": 0.2,
        "split": "signer:s9,s10", "seed": 4, "runs_dir": Path("there"), "labels": Path("names.txt"), "val_by": "signer",
    }  # fmt: skip
    assert {name: settings[name] for name in given} == given


def test_all_signs_unless_some_are_selected() -> None:
    settings = load()
    assert (settings["selected_signs_from"], settings["selected_signs_to"]) == (None, None)
    assert (settings["model"], settings["model_size"], settings["num_frames"]) == ("st_transformer", "s_4_6", 50)
    assert load("--selected_signs_from", "7", "--selected_signs_to", "7")["selected_signs_to"] == 7


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        ("--model bilsm", "--model: found 'bilsm'; did you mean 'bilstm'?"),
        ("--model gru", f"--model: found 'gru'; known names: {', '.join(sorted(MODELS))}"),
        ("--model_size s_4", "--model_size: found 's_4'; expected HEAD_HEADS_LAYERS such as s_4_6"),
        ("--split sgner:a", "--split: found 'sgner:a'; expected auto, own, random, all or signer:NAME[,NAME]"),
        ("--val_by sign", "--val_by: found 'sign'; input should be 'clip' or 'signer'"),
        ("--val_fraction 1", "--val_fraction: found 1; input should be less than 1"),
        ("--val_fraction 0", "--val_fraction: found 0; input should be greater than 0"),
        ("--selected_signs_from 0", "--selected_signs_from: found 0; input should be greater than or equal to 1"),
        ("--selected_signs_to ten", "--selected_signs_to: found 'ten'; input should be a valid integer"),
        (
            "--selected_signs_from 5 --selected_signs_to 2",
            "selected_signs_from 5 lies behind selected_signs_to 2; swap them",
        ),
        (
            "--model_selection last --early_stopping_epochs 3",
            "early_stopping_epochs 3 waits for epochs that are not the best, and with model_selection last each is",
        ),
        ("--num_frames 1", "--num_frames: found 1; input should be greater than or equal to 2"),
        ("--mirror_fraction 1.5", "--mirror_fraction: found 1.5; input should be less than or equal to 1"),
        ("--max_rotation_degrees 360", "--max_rotation_degrees: found 360; input should be less than or equal to 180"),
        ("--max_scale_fraction 1", "--max_scale_fraction: found 1; input should be less than 1"),
        ("--max_shift -0.1", "--max_shift: found -0.1; input should be greater than or equal to 0"),
        ("--dropout 1", "--dropout: found 1; input should be less than 1"),
        ("--signs_to 20", "--signs_to: unknown flag; did you mean '--selected_signs_to' or '--signers'?"),
    ],
)
def test_impossible_settings(argv: str, problem: str) -> None:
    (found,) = problems(*argv.split())
    assert found.startswith(problem)


def test_impossible_settings_are_reported_together() -> None:
    assert len(problems("--model", "gru", "--model_size", "s", "--split", "half", "--val_fraction", "2")) == 4
