"""Small runs on synthetic clips, whose checkpoints are exported and scored, and a checkpoint that learnt nothing."""

import json
from pathlib import Path

import torch
from launching import ROOT, done_here, train_on

from ds_trainer.checkpoint import write_checkpoint
from ds_trainer.tasks.sign.known_layouts import layout_for
from ds_trainer.tasks.sign.prepare import main as prepare
from ds_trainer.tasks.sign.store import ClipStore
from ds_trainer.tasks.sign.task import SignTask

NUM_CLIPS = 120  # of which ten validate, or no temperature would be fitted
MODEL = [
    "--num_frames", "8", "--num_epochs", "2", "--motion_fraction", "0.5", "--features", "place,presence,velocity,bone",
    "--weight_average_decay", "0.5",
]  # fmt: skip


def prepared_store(stores: Path) -> Path:
    """Synthetic clips of four signs and three signers."""
    shape = ["--num_signs", "4", "--num_signers", "3", "--min_frames", "8", "--max_frames", "14"]
    shape += ["--num_clips", str(NUM_CLIPS)]
    layout = ["--layout", "holistic_75"]
    done_here(prepare, "--source", "synthetic", *shape, *layout, "--stores_dir", stores)
    (path,) = stores.glob("*/")
    return path


def held_out(store: Path) -> str:
    return ClipStore.open(store).signer_names[1]


def train(store: Path, runs: Path, ranks: int, config: str, *flags: str) -> Path:
    split = ["--split", f"signer:{held_out(store)}", "--val_by", "clip"]
    shared = ["--deepspeed_config", config, "--data", store, "--runs_dir", runs, *MODEL, *split, *flags]
    train_on(ranks, *shared, timeout_s=200)
    (run_dir,) = runs.iterdir()
    return run_dir


def config_of(tmp_path: Path, stage: int, precision: str) -> str:
    config = json.loads((ROOT / "ds_configs" / "fp32.json").read_text())
    config["zero_optimization"]["stage"] = stage
    config["train_micro_batch_size_per_gpu"] = 4
    if precision == "bf16":
        config["bf16"] = {"enabled": True}
    path = tmp_path / f"stage_{stage}.json"
    path.write_text(json.dumps(config))
    return str(path)


def write_untrained(path: Path) -> None:
    """A checkpoint of two signs with random weights, of the layout of `sign_data.writers.frames`."""
    description = {
        "model": "st_transformer", "model_size": "t_1_1", "num_members": 1, "dropout": 0.0, "num_frames": 4,
        "motion_fraction": 0.0, "depth_weight": 1.0, "features": ["place"], "num_read": 0, "rest_fraction": 0.0,
        "mirrors_left_handed": False, "parts": {"all": list(range(20))}, "layout": layout_for(20, 3).to_dict(),
        "sign_names": ["one", "two"], "sign_numbers": [1, 2],
    }  # fmt: skip
    torch.manual_seed(0)
    weights = SignTask.model_from(description).state_dict()
    known = {"task": "sign", "description": description, "state_dict": weights, "temperature": 1.5}
    write_checkpoint(path, {**known, "settings": {}, "engine_config": {}, "epoch": 0, "metrics": {}})
