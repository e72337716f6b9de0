"""Whole checkpoints of both tasks, to be damaged."""

from functools import cache
from io import BytesIO
from typing import Any

import torch
from torch import Tensor

from ds_trainer.checkpoint import FORMAT
from ds_trainer.tasks.sign.known_layouts import layout_for
from ds_trainer.tasks.sign.task import SignTask
from ds_trainer.tasks.toy.task import ToyTask

TOY = {"num_hidden": 4, "num_arms": 3, "dropout": 0.5}
SIGN = {
    **{
        "model": "st_transformer",
        "model_size": "t_1_1",
        "dropout": 0.1,
        "num_frames": 4,
        "depth_weight": 1.0,
        "motion_fraction": 0.0,
        "features": ["place"],
    },
    **{"parts": {"all": [0, 1, 2]}, "layout": layout_for(3, 3).to_dict()},
    **{"num_members": 1, "num_read": 0, "rest_fraction": 0.0, "mirrors_left_handed": True},
    **{"sign_names": ["one", "two"], "sign_numbers": [1, 2]},
}
TASKS: dict[str, tuple[Any, dict[str, Any]]] = {"toy": (ToyTask, TOY), "sign": (SignTask, SIGN)}


def content(task: str) -> dict[str, Any]:
    known = {"format": FORMAT, "task": task, "description": TASKS[task][1], "epoch": 3, "metrics": {}}
    known |= {"settings": {}, "engine_config": {}, "temperature": 1.5}
    return {**known, "state_dict": dict(_weights(task))}


@cache
def _weights(task: str) -> dict[str, Tensor]:
    task_type, description = TASKS[task]
    torch.manual_seed(0)
    weights: dict[str, Tensor] = task_type.model_from(description).state_dict()
    return weights


def saved(value: Any) -> bytes:
    file = BytesIO()
    torch.save(value, file)
    return file.getvalue()
