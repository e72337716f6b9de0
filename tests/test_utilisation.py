"""Unit: which fraction of a device's arithmetic training uses, and when nothing is said of it."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cadences import cadence
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ds_trainer import utilisation as utilisation_module
from ds_trainer.progress import epoch_line
from ds_trainer.run.run_dir import Run
from ds_trainer.settings import combined_settings
from ds_trainer.task import Task
from ds_trainer.tasks.sign.models import MODELS, ModelSpec
from ds_trainer.tasks.sign.models.size import ModelSize
from ds_trainer.tasks.toy.task import ToySettings, ToyTask
from ds_trainer.utilisation import (
    Utilisation,
    forward_flops,
    peak_flops,
    precision_of_products,
    utilisation_of,
)
from ds_trainer.validation import Metrics

NUM_HIDDEN, NUM_ARMS = 32, 3
SPIRAL_FLOPS = 2 * (2 * NUM_HIDDEN + NUM_HIDDEN * NUM_HIDDEN + NUM_HIDDEN * NUM_ARMS)


@pytest.fixture
def task() -> ToyTask:
    return ToyTask(combined_settings(ToySettings)(deepspeed_config=Path("unused"), task="toy", num_points=50))


@pytest.fixture
def on_h200(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utilisation_module, "device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")


# -- peaks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "precision", "tera"),
    [
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("Tesla V100-SXM2-32GB", "bf16", None),
        ("Tesla T4", "fp16", 65),
        ("Tesla T4", "tf32", None),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA A100 80GB PCIe", "tf32", 156),
        ("A100-PCIE-40GB", "fp32", 19.5),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA L40S", "bf16", 362),
        ("NVIDIA GeForce RTX 3090", "fp16", 71),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.5),
        ("NVIDIA H100 PCIe", "bf16", 756.5),
        ("NVIDIA H200", "tf32", 494.5),
        ("NVIDIA B200", "bf16", 2250),
        ("AMD Instinct MI250X", "bf16", 191.5),
        ("AMD Instinct MI300X", "fp16", 1307.4),
    ],
)
def test_peak_of_a_known_device(name: str, precision: str, tera: float | None) -> None:
    assert peak_flops(name, precision) == (None if tera is None else pytest.approx(tera * 1e12))


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA L40",
        "Some GPU",
        "",
    ],
)
def test_nothing_is_guessed_of_another_device(name: str) -> None:
    assert peak_flops(name, "fp32") is None


def test_halved_precision_is_never_slower() -> None:
    for peaks in utilisation_module._PEAKS.values():
        for name in ("tf32", "fp16", "bf16"):
            assert (getattr(peaks, name) or peaks.fp32) >= peaks.fp32


@pytest.mark.parametrize(
    ("config", "precision"),
    [
        ({}, "fp32"),
        ({"bf16": {"enabled": False}, "fp16": {"enabled": True}}, "fp16"),
        ({"bf16": {"enabled": True}}, "bf16"),
        ({"torch_autocast": {"enabled": True}}, "bf16"),
    ],
)
def test_precision_of_an_engine_config(config: dict[str, Any], precision: str) -> None:
    assert precision_of_products(config) == precision


def test_float32_may_be_tf32() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert precision_of_products({}) == "tf32"
    finally:
        torch.set_float32_matmul_precision(before)


# -- operations -------------------------------------------------------------------------------------------------------


def test_operations_of_a_model_are_its_products(task: ToyTask) -> None:
    assert forward_flops(task, task.build_model()) == SPIRAL_FLOPS


class GivenBatch(Task):
    """Gives its model one input of a given shape."""

    def __init__(self, settings: Any):
        self.shape = settings
        self.train_set = [0]

    def prepare(self, items: Any, device: torch.device, draw: object) -> tuple[tuple[Tensor, ...], Any]:
        random.random(), np.random.rand(), torch.rand(1)
        return (torch.zeros(len(items), *self.shape),), items

    def build_model(self) -> nn.Module:
        raise NotImplementedError

    def label(self) -> str:
        raise NotImplementedError

    def description(self) -> dict[str, Any]:
        raise NotImplementedError

    @classmethod
    def model_from(cls, description: object) -> nn.Module:
        raise NotImplementedError


@pytest.mark.parametrize("name", MODELS)
def test_every_sign_model_can_be_counted(name: str) -> None:
    parts = (range(0, 4), range(4, 10), range(10, 12))
    spec = ModelSpec(parts=parts, num_features=3, num_signs=7, num_frames=8, size=ModelSize.parse("t_1_1"), dropout=0.3)
    model = MODELS[name](spec)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 8, 12, 3)) if name != "bilstm" else model.to("meta")(
            torch.zeros(1, 8, 12, 3, device="meta")
        )
    assert forward_flops(GivenBatch((8, 12, 3)), model) == counter.get_total_flops()


def test_counting_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generators = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    assert forward_flops(GivenBatch((3,)), model) == 2 * 3 * 4
    assert random.getstate() == generators[0]
    assert str(np.random.get_state()) == generators[1]
    assert torch.equal(torch.get_rng_state(), generators[2])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


# -- what is said -----------------------------------------------------------------------------------------------------


def test_fraction_of_the_peak() -> None:
    assert Utilisation(flops_per_example=6e9, peak_flops=1e15).at(50_000) == pytest.approx(0.3)


def test_passes_and_ranks_count(task: ToyTask, on_h200: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    found = utilisation_of(task, task.build_model(), {"bf16": {"enabled": True}})
    assert found == Utilisation(3 * SPIRAL_FLOPS, 4 * 989.5e12)


def test_nothing_is_said_on_a_cpu(task: ToyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utilisation_module, "device", lambda: torch.device("cpu"))
    assert utilisation_of(task, task.build_model(), {}) is None


def test_nothing_is_said_of_a_model_that_cannot_be_counted(task: ToyTask, on_h200: None) -> None:
    class ReadsNumbers(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            return points * points.sum().item()

    assert utilisation_of(task, ReadsNumbers(), {}) is None


def test_nothing_is_said_of_a_model_without_products(task: ToyTask, on_h200: None) -> None:
    assert utilisation_of(task, nn.Identity(), {}) is None


@pytest.mark.parametrize(("known", "shown"), [(Utilisation(6e9, 1e15), "  0 clips/s  0 % MFU  "), (None, "clips/s  0")])
def test_epoch_tells_it_where_it_is_known(tmp_path: Path, known: Utilisation | None, shown: str) -> None:
    run = Run(tmp_path, {}, cadence(), utilisation=known)
    for _ in run.remaining_epochs(1):
        run.record_epoch(2.5, Metrics(1.0, {"top1": 0.75}, torch.zeros(0), torch.zeros(0, 0)))
    (record,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert record.get("flops_utilisation") == (None if known is None else 0.0)
    assert shown in epoch_line(record, {"top1": 0.75}, 1, 0.0)


def test_epoch_line() -> None:
    record = {
        "epoch": 11, "train_loss": 0.25, "val_loss": 0.5, "learning_rate": 1e-3, "skipped_steps": 1,
        "examples_per_second": 60123.4, "flops_utilisation": 0.4149,
    }  # fmt: skip
    assert epoch_line(record, {"top1": 0.75}, 50, 65) == (
        "epoch  12/50  train 0.2500  val 0.5000  top1 0.750  lr 1.0e-03  60123 clips/s  41 % MFU  1:05 min left"
        "  1 step skipped"
    )
    assert "train -  val" in epoch_line({**record, "train_loss": None}, {}, 50, 65)
