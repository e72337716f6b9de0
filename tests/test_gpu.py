"""What a CPU cannot show. Skipped, with the reason, where there is no GPU."""

import sys
from pathlib import Path

import pytest
import torch
from launching import run_ranks, succeed, uses_launcher
from numerics import module_worker
from numerics.modules import MODULES
from numerics.test_any_module import plain
from test_launch import assert_complete, only_run

from ds_trainer.checkpoint import load_checkpoint
from ds_trainer.tasks.sign.models import MODELS as MODELS_OF_SIGNS

pytestmark = [
    uses_launcher,
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and there is none"),
]

NUM_SIGNS = 4


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips that need no package to read them: the machine that is lent may have no other way to get any."""
    stores_dir = tmp_path_factory.mktemp("stores")
    shape = ["--num_clips", "240", "--num_signs", NUM_SIGNS, "--num_signers", "4"]
    succeed(
        [sys.executable, "launch/prepare.py", "--source", "synthetic", *map(str, shape), "--stores_dir", stores_dir]
    )
    (path,) = stores_dir.glob("*/")
    return path


def trained(store: Path, runs_dir: Path, *flags: str, config: str = "bf16", num_epochs: int = 1) -> tuple[Path, str]:
    """The run directory, and what the log says."""
    command = ["deepspeed", "launch/train.py", "--deepspeed_config", f"ds_configs/{config}.json", "--data", store]
    output = succeed([*command, "--num_epochs", str(num_epochs), "--runs_dir", runs_dir, *flags], timeout_s=500)
    return only_run(runs_dir), output


@pytest.mark.parametrize(
    ("config", "model"),
    [
        *((config, "bilstm") for config in ("bf16", "fp32", "fp16", "bf16_zero2", "bf16_zero3", "bf16_offload")),
        *(("torch_autocast", model) for model in MODELS_OF_SIGNS),
        *(("bf16", model) for model in MODELS_OF_SIGNS if model != "bilstm"),
    ],
)
def test_engine_configs_and_models_train_on_the_gpu(config: str, model: str, store: Path, tmp_path: Path) -> None:
    run_dir, output = trained(store, tmp_path, "--model", model, "--model_size", "t_2_1", config=config)
    assert "of frames are kept on cuda" in output
    assert_complete(run_dir, NUM_SIGNS)


@pytest.mark.parametrize("recipe", ["unseen_signers", "fingerspelling"])
def test_recipes_train_on_the_gpu(recipe: str, store: Path, tmp_path: Path) -> None:
    run_dir, _ = trained(store, tmp_path, "--config", f"ds_configs/recipes/{recipe}.yaml")
    assert_complete(run_dir, NUM_SIGNS)


@pytest.mark.parametrize(
    ("model", "num_frames", "is_compiled"),
    [
        ("bilstm", 50, False),
        ("conv_transformer", 50, False),
        ("st_transformer", 50, False),
        ("st_transformer", 128, False),
        ("st_transformer", 50, True),
    ],
)
def test_the_same_bits_each_time(model: str, num_frames: int, is_compiled: bool, store: Path, tmp_path: Path) -> None:
    size = ["--model", model, "--model_size", "t_2_2", "--num_frames", str(num_frames), "--dropout", "0.3"]
    flags = [*size, *(["--compile"] if is_compiled else [])]
    first, second = (
        load_checkpoint(trained(store, tmp_path / name, *flags, num_epochs=2)[0] / "best.pth")
        for name in ("first", "second")
    )
    assert first["metrics"] == second["metrics"]
    assert all(torch.equal(second["state_dict"][name], weight) for name, weight in first["state_dict"].items())


def test_modules_of_any_kind_train_on_the_gpu(tmp_path: Path) -> None:
    run_ranks(Path(module_worker.__file__), 1, [tmp_path], timeout_s=400)
    for case, found in torch.load(tmp_path / "rank_0_of_1.pt", weights_only=False).items():
        if case[0] in MODULES:
            name, precision, _ = case
            assert found["losses"] == pytest.approx(plain(name)[0], rel=0.03 if precision == "bf16" else 1e-3), case


def test_every_gpu_of_the_machine_is_a_rank(store: Path, tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    _, output = trained(store, tmp_path, "--model_size", "t_1_1")
    assert f"{torch.cuda.device_count()} ranks on cuda" in output
