"""What a CPU cannot show. Skipped, with the reason, where there is no GPU."""

from pathlib import Path

import pytest
import torch
from launching import run_ranks, succeed, uses_launcher
from numerics import module_worker
from numerics.modules import MODULES
from numerics.test_any_module import plain
from test_launch import assert_complete, only_run

pytestmark = [
    uses_launcher,
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and there is none"),
]


@pytest.mark.parametrize(
    "config", ["bf16", "fp32", "fp16", "bf16_zero2", "bf16_zero3", "bf16_offload", "torch_autocast"]
)
def test_every_engine_config_trains_on_the_gpu(config: str, tmp_path: Path) -> None:
    flags = ["--model", "st_transformer", "--model_size", "t_2_1", "--num_epochs", "1"]
    succeed(
        [
            "deepspeed",
            "launch/train.py",
            "--deepspeed_config",
            f"ds_configs/{config}.json",
            *flags,
            "--runs_dir",
            tmp_path,
        ],
        timeout_s=500,
    )
    assert_complete(only_run(tmp_path), num_signs=26)


def test_a_compiled_model_trains_on_the_gpu(tmp_path: Path) -> None:
    flags = ["--model_size", "t_2_1", "--num_epochs", "1", "--compile", "--runs_dir", tmp_path]
    command = ["deepspeed", "launch/train.py", "--deepspeed_config", "ds_configs/bf16.json", *flags]
    output = succeed([*command, "--model", "conv_transformer"], timeout_s=500)
    assert "of frames are kept on cuda" in output
    assert_complete(only_run(tmp_path), num_signs=26)


def test_modules_of_any_kind_train_on_the_gpu(tmp_path: Path) -> None:
    run_ranks(Path(module_worker.__file__), 1, [tmp_path], timeout_s=400)
    for case, found in torch.load(tmp_path / "rank_0_of_1.pt", weights_only=False).items():
        if case[0] in MODULES:
            name, precision, _ = case
            assert found["losses"] == pytest.approx(plain(name)[0], rel=0.03 if precision == "bf16" else 1e-3), case


def test_every_gpu_of_the_machine_is_a_rank(tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    flags = ["--model_size", "t_1_1", "--num_epochs", "1", "--runs_dir", tmp_path]
    output = succeed(["deepspeed", "launch/train.py", "--deepspeed_config", "ds_configs/bf16.json", *flags])
    assert f"{torch.cuda.device_count()} ranks on cuda" in output
