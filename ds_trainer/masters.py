"""Where DeepSpeed keeps the float32 weight and the optimizer's moments of each parameter, at every ZeRO stage.

Three kinds: whole tensors (stage 0), a fragment of one flat partition a rank (stages 1 and 2), a partition of each
parameter (stage 3). Each is read and written whole here, so that nobody else has to know.

DeepSpeed's behaviours that are worked around here were seen with deepspeed 0.19.8.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator

import deepspeed
import torch
from deepspeed import DeepSpeedEngine
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_get_local_fp32_param,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn
from torch.optim import Optimizer

from ds_trainer.distributed import is_master, rank


class Master(ABC):
    """The float32 numbers that belong to one trained parameter."""

    def __init__(self, parameter: nn.Parameter):
        self.parameter = parameter

    @property
    def shape(self) -> torch.Size:
        """Of the whole parameter."""
        return self.parameter.shape

    @abstractmethod
    def read(self, moment: str | None) -> Tensor:
        """The weight (None) or a moment of the optimizer, whole, on every rank. Collective."""

    @abstractmethod
    def write(self, moment: str | None, whole: Tensor) -> None:
        """Put this rank's part of `whole` in its place; `refresh_weights` follows the last one."""


class WholeMaster(Master):
    """At stage 0: a stretch of a tensor of the optimizer that every rank has."""

    def __init__(self, parameter: nn.Parameter, optimizer: Optimizer, owner: Tensor, start: int = 0):
        super().__init__(parameter)
        self._optimizer = optimizer
        self._owner = owner
        self._start = start

    def read(self, moment: str | None) -> Tensor:
        numbers = self._owner if moment is None else self._optimizer.state[self._owner][moment]
        return numbers.detach().view(-1)[self._start : self._start + self.parameter.numel()].view(self.shape)

    def write(self, moment: str | None, whole: Tensor) -> None:
        self.read(moment).copy_(whole)


class FragmentMaster(Master):
    """At stages 1 and 2: a fragment of each rank's flat partition, on the ranks whose partition it falls into."""

    def read(self, moment: str | None) -> Tensor:
        parameter = self.parameter
        whole = (
            safe_get_full_fp32_param(parameter) if moment is None else safe_get_full_optimizer_state(parameter, moment)
        )
        assert whole is not None, "a trained parameter has a master"
        return torch.as_tensor(whole)

    def write(self, moment: str | None, whole: Tensor) -> None:
        if moment is None:
            safe_set_full_fp32_param(self.parameter, whole)
        else:
            safe_set_full_optimizer_state(self.parameter, whole, moment)


class PartitionMaster(FragmentMaster):
    """At stage 3: an equal part of each parameter on every rank, the last one filled up."""

    @property
    def shape(self) -> torch.Size:
        return self.parameter.ds_shape  # type: ignore[no-any-return, attr-defined]

    def write(self, moment: str | None, whole: Tensor) -> None:
        # DeepSpeed's own setter of whole values fails where the ranks do not divide the parameter.
        size = safe_get_local_fp32_param(self.parameter).numel()
        own = whole.flatten()[rank() * size :][:size]
        part = torch.nn.functional.pad(own, (0, size - own.numel()))
        if moment is None:
            safe_set_local_fp32_param(self.parameter, part)
        else:
            safe_set_local_optimizer_state(self.parameter, part, moment)


def masters(engine: DeepSpeedEngine, module: nn.Module) -> dict[str, Master]:
    """The master of each trained parameter of `module`, which is the engine's, or within it."""
    whole = {id(master.parameter): master for master in _whole_masters(engine)}
    return {
        name: whole[id(parameter)] if id(parameter) in whole else _divided_master(parameter)
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def _divided_master(parameter: nn.Parameter) -> Master:
    return PartitionMaster(parameter) if hasattr(parameter, "ds_id") else FragmentMaster(parameter)


def _whole_masters(engine: DeepSpeedEngine) -> Iterator[WholeMaster]:
    optimizer = engine.basic_optimizer
    if engine.zero_optimization():
        return
    if hasattr(engine.optimizer, "fp32_groups_flat"):  # fp16 with a fused optimizer: one flat master a group
        for parameters, flat in zip(engine.optimizer.fp16_groups, engine.optimizer.fp32_groups_flat, strict=True):
            starts = itertools.accumulate((parameter.numel() for parameter in parameters), initial=0)
            for parameter, start in zip(parameters, starts, strict=False):
                yield WholeMaster(parameter, optimizer, flat, start)
        return
    owners = [group["params"] for group in optimizer.param_groups]  # 16-bit parameters have float32 tensors there
    for parameters, own in zip(getattr(engine.optimizer, "fp16_groups", owners), owners, strict=True):
        for parameter, owner in zip(parameters, own, strict=True):
            yield WholeMaster(parameter, optimizer, owner)


def refresh_weights(engine: DeepSpeedEngine, by_name: dict[str, Master]) -> None:
    """Make the weights that the model computes with those of the masters. Collective."""
    stage = engine.zero_optimization_stage()
    if stage in (1, 2):
        engine.optimizer.update_lp_params()
        return
    for master in by_name.values():
        weight = master.read(None)
        # At stage 3 a parameter stands on each rank in part, and small ones stay gathered as well.
        with (
            deepspeed.zero.GatheredParameters([master.parameter], modifier_rank=0, enabled=stage == 3),
            torch.no_grad(),
        ):
            if stage == 0 or is_master():
                master.parameter.copy_(weight)
