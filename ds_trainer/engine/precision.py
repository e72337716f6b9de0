"""In what precision a model computes, and what it keeps beside its weights.

An engine config says bf16 or fp16 of weights. What follows from it for inputs, for buffers and for layers that
normalise by statistics of many batches is decided here, so that any module trains as it is.
"""

import copy
import dataclasses
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase


class ComputesInFloat32(nn.Module):
    """A model whose 16-bit weights are read as float32, for a CPU without 16-bit arithmetic.

    There a bf16 matrix product runs at a fortieth of the speed of a float32 one (1.3 against 49 GFLOP/s on one AVX2
    core, torch 2.13.0). Weights, gradients, masters and what ranks exchange stay as the engine config says.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any) -> Any:
        """What the model makes of `inputs`, in float32."""
        weights = {name: cast_floats(value, torch.float32) for name, value in self.model.named_parameters()}
        buffers = {name: cast_floats(value, torch.float32) for name, value in self.model.named_buffers()}
        return functional_call(self.model, weights | buffers, inputs)


def computes_in_float32(config: Mapping[str, Any]) -> bool:
    """Whether a bf16 engine computes in float32 here: on a CPU without bf16 instructions.

    Not under ZeRO-3, which hands each layer its weights only while that layer runs.
    """
    is_bf16 = config.get("bf16", {}).get("enabled", False)
    return is_bf16 and not is_divided(config) and not torch.cuda.is_available() and not has_fast_bf16()


def is_divided(config: Mapping[str, Any]) -> bool:
    """Whether each weight is divided among the ranks, and whole only while its layer runs: ZeRO stage 3."""
    return bool(config.get("zero_optimization", {}).get("stage", 0) == 3)


def has_fast_bf16() -> bool:
    """Whether matrix products in bf16 are at least as fast as in float32 on this machine."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))  # since Ampere
    if platform.machine() == "x86_64":
        # oneDNN says yes of any AVX-512, where it converts: 17 against 58 GFLOP/s in float32 (torch 2.13.0).
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def cast_floats(value: Any, dtype: torch.dtype) -> Any:
    """`value` with every floating-point tensor in it, at any depth, as `dtype`; containers keep their types."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(cast_floats(item, dtype) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(cast_floats(item, dtype) for item in value)
    if isinstance(value, dict):  # first, since some are dataclasses as well, such as what models of transformers give
        cast = copy.copy(value)
        for key, item in value.items():
            cast[key] = cast_floats(item, dtype)
        return cast
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = copy.copy(value)
        for field in dataclasses.fields(value):
            object.__setattr__(changed, field.name, cast_floats(getattr(value, field.name), dtype))
        return changed
    return value


def has_statistics(module: nn.Module) -> bool:
    """Whether a layer normalises by statistics of many batches, such as `BatchNorm1d`, which are buffers of its own.

    torch takes inputs of 16 bits there, and then wants weights as precise as the statistics.
    """
    return isinstance(module, _NormBase) and module.running_mean is not None


def buffer_dtype(config: Mapping[str, Any]) -> str | None:
    """In what buffers are kept, as an engine config says it, statistics apart; None: as the model made them.

    A table of positions in float32 would make float32 of what it is added to, which the next layer, whose weights have
    16 bits, refuses; DeepSpeed leaves buffers as they are unless it is told (seen with 0.19.8).
    """
    if computes_in_float32(config):
        return "fp32"
    said: str | None = config.get("data_types", {}).get("buffer_dtype")
    return said or next((name for name in ("bf16", "fp16") if config.get(name, {}).get("enabled")), None)


@contextmanager
def exact_statistics(model: nn.Module) -> Iterator[None]:
    """Whatever is cast within, layers that normalise by statistics of many batches compute with exact ones afterwards.

    In 16 bits, what a batch changes of them would be lost. The frozen weights of such a layer become as precise; those
    that are trained, `FlatModel` converts.
    """
    layers = [module for module in model.modules() if has_statistics(module)]
    held = [(layer, {name: buffer.data for name, buffer in layer.named_buffers(recurse=False)}) for layer in layers]
    yield
    for layer, buffers in held:
        for name, buffer in layer.named_buffers(recurse=False):  # others than before, if they were moved to a device
            buffer.data = buffers[name].to(buffer.device)
    for layer in layers:
        for weight in layer.parameters(recurse=False):
            weight.data = as_statistics_of(layer, weight.data)


def as_statistics_of(layer: nn.Module, weight: Tensor) -> Tensor:
    """A weight in the precision of the statistics of its layer, which `has_statistics`."""
    statistics: Tensor = layer.running_mean  # type: ignore[assignment]  # which not every module has
    return weight.to(statistics.dtype)
