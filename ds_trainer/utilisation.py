"""How much of the device's arithmetic training uses, where the device's peak is known: model FLOPs utilisation.

Counted are the operations that the model needs, not those that an engine repeats: a forward pass, and twice as many for
its backward pass. On a CPU nothing is said, as its peak depends on its clock and on what else runs there.
"""

import copy
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import Dataset
from torch.utils.flop_counter import flop_registry

from ds_trainer.distributed import device, world_size
from ds_trainer.progress import log
from ds_trainer.task import Task

_PASSES = 3
"""A backward pass computes two products for each product of the forward pass: by its inputs and by its weights."""
_MOST_CALLS = 3000
"""Operators of a forward pass that are counted: a quarter of a second. A large transformer has a thousand."""


@dataclass(frozen=True)
class _Peaks:
    """TFLOP/s of dense matrix products, summed in float32; None where the device cannot."""

    fp32: float
    tf32: float | None = None
    fp16: float | None = None
    bf16: float | None = None


# Where a data sheet gives numbers with sparsity, half of them. Names as `torch.cuda.get_device_name` tells them, whole:
# a slice of a GPU (MIG) and a laptop's GPU are called like the whole one with an addition.
_PEAKS = {
    # NVIDIA V100 data sheet (January 2020): SXM2, PCIe, V100S.
    r"Tesla V100-SXM[23].*": _Peaks(fp32=15.7, fp16=125),
    r"Tesla V100-PCIE.*": _Peaks(fp32=14, fp16=112),
    r"Tesla V100S-PCIE.*": _Peaks(fp32=16.4, fp16=130),
    # NVIDIA T4 data sheet (March 2019).
    r"Tesla T4": _Peaks(fp32=8.1, fp16=65),
    # NVIDIA A100 data sheet (June 2021): the same for SXM and PCIe, 40 and 80 GB.
    r"(NVIDIA )?A100[- ](SXM4|PCIE|PCIe|80GB PCIe)(-?\d+GB)?": _Peaks(fp32=19.5, tf32=156, fp16=312, bf16=312),
    # NVIDIA L4 data sheet (March 2023).
    r"NVIDIA L4": _Peaks(fp32=30.3, tf32=60, fp16=121, bf16=121),
    # NVIDIA L40S data sheet (October 2023).
    r"NVIDIA L40S": _Peaks(fp32=91.6, tf32=183, fp16=362, bf16=362),
    # NVIDIA Ampere GA102 whitepaper 2.1, table 2; fp16 summed in float32.
    r"NVIDIA GeForce RTX 3090": _Peaks(fp32=35.6, tf32=35.6, fp16=71, bf16=71),
    # NVIDIA Ada whitepaper 2.1, appendix A; fp16 summed in float32.
    r"NVIDIA GeForce RTX 4090": _Peaks(fp32=82.6, tf32=82.6, fp16=165.2, bf16=165.2),
    # NVIDIA H100 data sheet (May 2024): SXM, NVL; PCIe from the edition of March 2022.
    r"NVIDIA H100 \d+GB HBM3": _Peaks(fp32=67, tf32=494.5, fp16=989.5, bf16=989.5),
    r"NVIDIA H100 NVL": _Peaks(fp32=60, tf32=417.5, fp16=835.5, bf16=835.5),
    r"NVIDIA H100 PCIe": _Peaks(fp32=51, tf32=378, fp16=756.5, bf16=756.5),
    # NVIDIA H200 data sheet (November 2024): SXM, NVL.
    r"NVIDIA H200": _Peaks(fp32=67, tf32=494.5, fp16=989.5, bf16=989.5),
    r"NVIDIA H200 NVL": _Peaks(fp32=60, tf32=417.5, fp16=835.5, bf16=835.5),
    # NVIDIA Blackwell data sheet (2025), one GPU of an HGX B200.
    r"NVIDIA B200": _Peaks(fp32=75, tf32=1100, fp16=2250, bf16=2250),
    # AMD Instinct MI250X data sheet (2021), halved: torch sees each of its two dies as a device.
    r"AMD Instinct MI250X.*": _Peaks(fp32=47.9, fp16=191.5, bf16=191.5),
    # AMD Instinct MI300X data sheet (2023).
    r"AMD Instinct MI300X.*": _Peaks(fp32=163.4, tf32=653.7, fp16=1307.4, bf16=1307.4),
}


def peak_flops(device_name: str, precision: str) -> float | None:
    """FLOP/s that a device reaches at most, or None where that is not known.

    Args:
        device_name: as `torch.cuda.get_device_name` tells it.
        precision: "bf16", "fp16", "tf32" or "fp32".
    """
    found = next((peaks for pattern, peaks in _PEAKS.items() if re.fullmatch(pattern, device_name)), None)
    tera: float | None = None if found is None else getattr(found, precision)
    return None if tera is None else tera * 1e12


def precision_of_products(engine_config: Mapping[str, Any]) -> str:
    """The precision of an engine's matrix products: "bf16", "fp16", "tf32" or "fp32"."""
    if engine_config.get("torch_autocast", {}).get("enabled"):
        return "bf16"
    is_reduced = torch.get_float32_matmul_precision() != "highest"
    otherwise = "tf32" if is_reduced else "fp32"
    return next((block for block in ("bf16", "fp16") if engine_config.get(block, {}).get("enabled")), otherwise)


@dataclass(frozen=True)
class Utilisation:
    """What a training step takes, and what the devices can do.

    Args:
        flops_per_example: of its forward and backward pass.
        peak_flops: FLOP/s of the devices of all ranks together.
    """

    flops_per_example: float
    peak_flops: float

    def at(self, examples_per_second: float) -> float:
        """The fraction of the peak that so many examples a second use."""
        return examples_per_second * self.flops_per_example / self.peak_flops


def utilisation_of(task: Task, model: nn.Module, engine_config: Mapping[str, Any]) -> Utilisation | None:
    """What is needed to tell the utilisation; None where the peak is unknown or the model cannot be counted.

    Args:
        model: as the task built it, before the engine changes it.
    """
    if device().type != "cuda":
        return None
    peak = peak_flops(torch.cuda.get_device_name(), precision_of_products(engine_config))
    if peak is None:
        return None
    try:
        forward = forward_flops(task, model)
    except Exception as error:  # a task's own model may do anything, and training does not need the number
        log.debug(f"utilisation is not shown: the model's operations could not be counted ({error})")
        return None
    return Utilisation(_PASSES * forward, peak * world_size()) if forward else None


def forward_flops(task: Task, model: nn.Module) -> float:
    """FLOPs of the forward pass of one example of the training split; nothing is computed and nothing changes."""
    with _no_trace_in_generators():
        item = _first_item(task.train_set)
        inputs, _ = task.prepare(task.collate([item, item]), torch.device("cpu"), None)
        with _Products() as products, _Recurrent() as recurrent:
            _shape_of(model)(*(torch.empty_like(part, device="meta") for part in inputs))
    return float(products.flops + recurrent.flops) / 2  # of two: a batch norm refuses one


class _Products(TorchDispatchMode):
    """Counts as `FlopCounterMode` does, by torch's own formulas, in half the time, and gives up where it would take
    long."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self._num_calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._num_calls += 1
        if self._num_calls > _MOST_CALLS:
            raise RuntimeError(f"it calls more than {_MOST_CALLS} operators")
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result


class _Recurrent(TorchFunctionMode):
    """Counts an LSTM as a whole: without a device that has a kernel for it, it is ten operators for each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.lstm or not isinstance(args[1], tuple):  # packed sequences are counted in parts
            return func(*args, **(kwargs or {}))
        inputs, states, weights, _, num_layers = args[:5]
        positions = inputs.shape[:-1]
        self.flops += 2 * positions.numel() * sum(weight.numel() for weight in weights if weight.dim() == 2)
        num_directions = states[0].shape[0] // num_layers
        outputs = inputs.new_empty(*positions, num_directions * states[0].shape[-1])
        return outputs, *(torch.empty_like(state) for state in states)


def _first_item(dataset: Dataset[Any]) -> Any:
    return dataset.__getitems__([0])[0] if hasattr(dataset, "__getitems__") else dataset[0]


def _shape_of(model: nn.Module) -> nn.Module:
    """A copy without numbers, in evaluation mode: dropout draws nothing there."""
    shapes: dict[int, Tensor] = {id(buffer): torch.empty_like(buffer, device="meta") for buffer in model.buffers()}
    for parameter in model.parameters():
        # With gradients: without them torch's own transformer takes a fused path whose products are not counted.
        shapes[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
    return copy.deepcopy(model, shapes).eval()


@contextmanager
def _no_trace_in_generators() -> Iterator[None]:
    """Put the generators of Python, numpy and torch back to where they were: a data set may draw for its items."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
