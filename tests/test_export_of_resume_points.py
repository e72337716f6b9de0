"""A resume point of any ZeRO stage and number of ranks is exported as the checkpoint that it would have been."""

from pathlib import Path

import pytest
import torch
from launching import done_here
from sign_runs import config_of, prepared_store, train

from ds_trainer.export.command import main
from ds_trainer.source import load_source

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_store(tmp_path_factory.mktemp("stores"))


@pytest.mark.parametrize(
    ("ranks", "stage", "precision"),
    [(2, 0, "bf16"), (3, 1, "fp32"), (2, 2, "bf16"), (2, 3, "bf16")],
)
def test_resume_point_of_any_stage_and_world_size_gives_the_best_checkpoint(
    store: Path, tmp_path: Path, ranks: int, stage: int, precision: str
) -> None:
    """The last epoch was the best: then both hold the same averaged weights, to the bit."""
    model = ["--model", "bilstm", "--model_size", "t_1_1"]
    run_dir = train(store, tmp_path / "runs", ranks, config_of(tmp_path, stage, precision), *model)
    best, last = load_source(run_dir), load_source(run_dir / "resume")
    assert best["epoch"] == last["epoch"] == 1, "or the test says nothing"
    assert best["state_dict"].keys() == last["state_dict"].keys()
    for name, value in best["state_dict"].items():
        assert torch.equal(value, last["state_dict"][name]), name
    (point,) = (run_dir / "resume").glob("epoch_*")
    assert load_source(point)["state_dict"].keys() == last["state_dict"].keys()
    flags = ["--to", "safetensors", "--out", tmp_path / "weights.safetensors"]
    output = done_here(main, run_dir / "resume", *flags)
    assert "differ by 0 at most" in output
    assert "note: no temperature was fitted to these weights: confidences are not calibrated" in output
