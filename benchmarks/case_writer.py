"""Makes the folder of a case, with the clips and the first weights that ds_trainer would train with."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.case import CLIPPING, LEARNING_RATE, Case
from benchmarks.plain_data import layout_of
from ds_trainer.command_line import load_settings
from ds_trainer.settings import RunSettings
from ds_trainer.task import load_task_type
from ds_trainer.tasks.sign.task import SignTask

ENGINE_CONFIG = Path(__file__).parents[1] / "ds_configs" / "bf16.json"
REFERENCE = Path(__file__).with_name("reference.yaml")
_STEPS_PER_EPOCH = 1000  # the peers do nothing at the end of an epoch: on a GPU that would be most of a small one
NUM_EPOCHS = 1_000_000  # a contestant is stopped long before


def flags_of(case: Case, runs_dir: Path, num_epochs: int) -> list[str]:
    """The flags of `launch/train.py` with which ds_trainer trains a case."""
    flags = {
        "deepspeed_config": case.folder / "engine.json",
        "config": REFERENCE,
        "data": case.store,
        "model_size": case.size,
        "dropout": case.dropout,
        "num_frames": case.num_frames,
        # All parts and the whole depth, as the peers' data path gives them.
        "parts": ",".join(layout_of(case.store)["parts"]),
        "depth_weight": 1.0,
        "num_epochs": num_epochs,
        "split": "random",  # a small store has no test split
        "runs_dir": runs_dir,
    }
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


def settings_of(case: Case, runs_dir: Path, is_compiled: bool = False) -> RunSettings:
    """The run settings of a contestant."""
    flags = flags_of(case, runs_dir, NUM_EPOCHS)
    flags += ["--stall_timeout_s", "86400"]  # a contestant waits while others run
    flags += ["--min_epoch_clips", str(_STEPS_PER_EPOCH * case.micro_batch)]
    flags += ["--compile"] if is_compiled else []
    return load_settings(flags, load_task_type)


def write_case(folder: Path, store: Path, size: str, micro_batch: int, dropout: float, engine_config: Path) -> Case:
    """Make the folder of a case; nothing is trained.

    Args:
        engine_config: of ds_trainer; micro-batch, clipping and learning rate are those of the peers.
    """
    folder.mkdir(parents=True)
    config = json.loads(engine_config.read_text())
    config |= {"train_micro_batch_size_per_gpu": micro_batch, "gradient_clipping": CLIPPING}
    config["optimizer"]["params"]["lr"] = LEARNING_RATE
    (folder / "engine.json").write_text(json.dumps(config))
    case = Case(folder, store.resolve(), size, micro_batch, dropout, num_signs=0)
    task = SignTask(settings_of(case, folder / "runs"))
    case = replace(case, num_signs=len(task.class_names or ()))
    case.save()
    clips = task.clips_of(task.train_set)
    _, classes_B = task.prepare(torch.from_numpy(clips[:1]), torch.device("cpu"), None)
    class_of_sign = {sign: number for number, sign in enumerate(np.unique(task.store.sign))}
    classes = np.array([class_of_sign[sign] for sign in task.store.sign[clips]])
    assert classes[0] == int(classes_B[0]), "the classes of the peers are those of ds_trainer"
    np.savez(folder / "clips.npz", clip=clips, sign_class=classes)
    torch.manual_seed(task.settings.seed)
    torch.save(task.build_model().state_dict(), folder / "weights.pt")
    return case
