"""Every shipped engine config resolves, stands in the README table, and trains as the table says."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ds_trainer.engine.config import check_engine_config, load_engine_config, resolve_engine_config
from ds_trainer.engine.plan import memory_estimate
from ds_trainer.errors import SettingsError

ROOT = Path(__file__).parents[1]
CONFIGS_DIR = ROOT / "ds_configs"
NAMES = sorted(path.name for path in CONFIGS_DIR.glob("*.json"))
DTYPES = {
    "bf16.json": "torch.bfloat16",
    "bf16_offload.json": "torch.bfloat16",
    "bf16_zero2.json": "torch.bfloat16",
    "bf16_zero3.json": "torch.bfloat16",
    "fp32.json": "torch.float32",
    "torch_autocast.json": "torch.float32",
}


def table_rows() -> dict[str, list[str]]:
    """The README's table: file name -> the other cells of its row."""
    rows = {}
    for line in (CONFIGS_DIR / "README.md").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\| `(\w+\.json)` \|(.*)\|$", line):
            rows[match[1]] = [cell.strip() for cell in match[2].split("|")]
    return rows


def bytes_on(formula: str, num_ranks: int) -> float:
    """What a formula of the table, such as "4 + 12/N", gives."""
    terms = [term.strip().partition("/N") for term in formula.split("+")]
    return sum(int(number) / (num_ranks if per_rank else 1) for number, per_rank, _ in terms)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_config_resolves_to_itself(name: str, world_size: int) -> None:
    resolved = resolve_engine_config(load_engine_config(CONFIGS_DIR / name), world_size, "cuda")
    assert resolved["train_batch_size"] == 32 * world_size
    assert resolve_engine_config(resolved, world_size, "cuda") == resolved


def test_table_has_a_row_for_each_file() -> None:
    assert sorted(table_rows()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_table_tells_the_truth(name: str) -> None:
    precision, stage, bytes_a_parameter, host_bytes, _, cpu = table_rows()[name]
    config = resolve_engine_config(load_engine_config(CONFIGS_DIR / name), 8, "cuda")
    enabled = [key for key in ("bf16", "fp16", "torch_autocast") if config.get(key, {}).get("enabled")]
    assert precision.startswith({"torch_autocast": "fp32 weights, bf16"}.get(*enabled, *enabled) if enabled else "fp32")
    assert int(stage) == config["zero_optimization"]["stage"]
    memory = memory_estimate(8_000, 8, config)[int(stage)]
    assert memory.total / 8_000 == bytes_on(bytes_a_parameter, 8)
    assert memory.host / 8_000 == bytes_on(host_bytes, 8)
    assert cpu.startswith("no" if check_engine_config(config, 8, "cpu", name) else "yes")


def test_fp16_is_refused_on_a_cpu() -> None:
    with pytest.raises(SettingsError, match="DeepSpeed refuses fp16 on a CPU; use bf16 or torch_autocast there"):
        resolve_engine_config(load_engine_config(CONFIGS_DIR / "fp16.json"), 1, "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("name", DTYPES)
def test_config_trains_on_a_cpu(name: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost"}
    environment |= {"MASTER_PORT": str(port), "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"OMP_NUM_THREADS": "1", "TORCH_EXTENSIONS_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, str(CONFIGS_DIR / name)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    losses = seen.pop("losses")
    assert losses[0] > losses[1] > losses[2], losses
    assert seen == {
        "stage": int(table_rows()[name][1]),
        "dtype": DTYPES[name],
        "optimizer": "AdamW",
        "is_fused": True,
        "has_clipped_to": 1.0,
        "compiled": [],
    }


def train_three_steps(path: Path) -> None:
    """Print what an engine of the config at `path` is and its first losses; the process is the only rank."""
    import torch
    from torch import nn

    from ds_trainer.engine.engine import build_engine

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 4))
    engine = build_engine(model, resolve_engine_config(load_engine_config(path), world_size=1, device_type="cpu"))
    inputs_BC, signs_B = torch.randn(32, 16), torch.randint(0, 4, (32,))
    losses = []
    for _ in range(3):
        loss = nn.functional.cross_entropy(engine(inputs_BC).float(), signs_B)
        engine.backward(loss, scale_wrt_gas=False)
        engine.step()
        losses.append(loss.item())
    seen = {
        "losses": losses,
        "stage": engine.zero_optimization_stage(),
        "dtype": str(next(engine.module.parameters()).dtype),
        "optimizer": type(engine.basic_optimizer).__name__,
        "is_fused": engine.basic_optimizer.param_groups[0]["fused"],
        "has_clipped_to": engine.gradient_clipping(),
        "compiled": [path.name for path in Path(os.environ["TORCH_EXTENSIONS_DIR"]).iterdir()],
    }
    sys.stdout.write(json.dumps(seen) + "\n")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    train_three_steps(Path(sys.argv[1]))
