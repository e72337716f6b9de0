"""Class weights mean the same on any number of ranks: each clip counts what its class says, wherever it lies."""

import json
from pathlib import Path

import numpy as np
import pytest
from launching import ROOT, train_on

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

NUM_CLIPS_OF = (60, 20, 7)


def write_unbalanced(path: Path) -> None:
    """Packed clips of three signs, the first nine times as frequent as the last."""
    generator = np.random.default_rng(0)
    signs = np.repeat(np.arange(3), NUM_CLIPS_OF)
    lengths = generator.integers(8, 14, len(signs))
    frames = generator.normal(size=(lengths.sum(), 5, 3)) + np.repeat(signs, lengths)[:, None, None] * 0.3
    np.savez(
        path,
        frames=frames.astype(np.float32),
        offsets=np.concatenate([[0], lengths.cumsum()]),
        y=signs,
        label_names=np.array(["one", "two", "three"]),
        signer=np.resize(["a", "b", "c"], len(signs)),
        ids=np.array([f"clip_{number}" for number in range(len(signs))]),
    )


def epochs_of(tmp_path: Path, num_ranks: int, *weights: str) -> list[dict[str, float]]:
    """The records of two epochs on so many ranks, 24 clips a step."""
    config = json.loads((ROOT / "ds_configs" / "fp32.json").read_text())
    config |= {"train_batch_size": 24, "train_micro_batch_size_per_gpu": 24 // num_ranks}
    config_path = tmp_path / f"{num_ranks}.json"
    config_path.write_text(json.dumps(config))
    runs_dir = tmp_path / f"runs_{num_ranks}{''.join(weights)}"
    model = ["--model", "bilstm", "--model_size", "t_1_1", "--num_frames", "8", "--dropout", "0"]
    where = ["--data", tmp_path / "clips.npz", "--stores_dir", tmp_path / "stores", "--split", "random"]
    flags = ("--deepspeed_config", config_path, *model, *where, "--num_epochs", "2", "--runs_dir", runs_dir, *weights)
    train_on(num_ranks, *flags)
    (path,) = runs_dir.glob("*/metrics.jsonl")
    return [record for record in map(json.loads, path.read_text().splitlines()) if record["kind"] == "epoch"]


def test_weighted_losses_are_the_same_on_one_rank_and_on_three(tmp_path: Path) -> None:
    write_unbalanced(tmp_path / "clips.npz")
    weighted = epochs_of(tmp_path, 1, "--class_weights", "balanced")
    on_three = epochs_of(tmp_path, 3, "--class_weights", "balanced")
    unweighted = epochs_of(tmp_path, 1)
    for name in ("train_loss", "val_loss", "grad_norm"):
        values = [[record[name] for record in records] for records in (weighted, on_three, unweighted)]
        assert values[1] == pytest.approx(values[0], rel=1e-5), name
        assert values[2] != pytest.approx(values[0], rel=1e-3), name
