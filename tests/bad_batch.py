"""Bad batches as training saves them, and ways to change them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from faulty_task import BAD, FaultyTask
from pydantic_core import to_jsonable_python

from ds_trainer.checkpoint import write_checkpoint
from ds_trainer.command_line import load_settings
from ds_trainer.files import write_json
from ds_trainer.randomness import mixed
from ds_trainer.run.environment import describe_environment
from ds_trainer.task import load_task_type

TASK = "faulty_task:FaultyTask"
FP32: dict[str, Any] = {"train_micro_batch_size_per_gpu": 8}
BF16 = {**FP32, "bf16": {"enabled": True}}


def save_bad_batch(
    run_dir: Path, fault: str, config: dict[str, Any] = FP32, losses: tuple[float | None, ...] = (None,)
) -> Path:
    """What training saves of a step of as many micro-steps as there are losses, the bad clip in each."""
    argv = ["--deepspeed_config", "unused.json", "--task", TASK, "--fault", fault]
    settings = load_settings(argv, load_task_type)
    task = FaultyTask(settings)
    folder = run_dir / "bad_batches" / "step_00000003"
    folder.mkdir(parents=True)
    indices = [3, 0, BAD, 7, 1, 2, 2, 2]
    micro_steps = [
        {
            "rank": 0, "number": number, "indices": indices, "num_real": 6,
            "names": [task.train_set.name_of(index) for index in indices[:6]],
            "dropout_seed": mixed(0, 1, number, 0), "share": 1 / 6, "loss": loss, "loss_text": str(loss or "nan"),
        }
        for number, loss in enumerate(losses)
    ]  # fmt: skip
    place = {"step": 3, "epoch": 1, "noticed_after_step": 4, "num_updates_since": 1}
    write_json(folder / "batch.json", {**place, "seed": 0, "world_size": 1, "micro_steps": micro_steps})
    torch.manual_seed(0)
    content = {
        "task": TASK, "description": task.description(), "engine_config": config, "versions": {},
        "settings": to_jsonable_python(settings, exclude={"config", "resume"}),
        "epoch": 1, "step": 4, "metrics": {}, "state_dict": task.build_model().state_dict(),
    }  # fmt: skip
    write_checkpoint(folder / "weights.pth", content)
    write_json(run_dir / "environment.json", describe_environment(task.fingerprint()))
    return folder


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def first(batch: Any) -> Any:
    return batch["micro_steps"][0]
