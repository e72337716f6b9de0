"""Where DeepSpeed keeps the float32 weight and the optimizer's moments of each parameter, at every ZeRO stage.

Three kinds: whole tensors (stage 0), one flat tensor divided among the ranks (stages 1 and 2), each parameter divided
(stage 3). All are read and written whole here, by name, so that nobody else has to know.

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

from ds_trainer.distributed import is_master, rank, to_master
from ds_trainer.engine.engine import plain_module
from ds_trainer.engine.flat_model import FlatModel

Whole = dict[str, Tensor]


class Masters(ABC):
    """The float32 numbers that belong to the trained parameters of a module.

    Args:
        module: the engine's, or within it.
    """

    def __init__(self, engine: DeepSpeedEngine, module: nn.Module):
        self.engine = engine
        self.parameters = {name: value for name, value in module.named_parameters() if value.requires_grad}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the whole parameters."""
        return {name: tuple(parameter.shape) for name, parameter in self.parameters.items()}

    @abstractmethod
    def read(self, moment: str | None) -> Whole:
        """The weights (None) or a moment of the optimizer, on the master rank; elsewhere maybe nothing. Collective."""

    @abstractmethod
    def write(self, name: str, moment: str | None, whole: Tensor) -> None:
        """Put this rank's part of `whole` in its place; `refresh_weights` follows the last one."""

    @abstractmethod
    def refresh_weights(self) -> None:
        """Make the weights that the model computes with those of the masters. Collective."""


class WholeMasters(Masters):
    """At stage 0: every rank has tensors of its own; in float32 they are the parameters themselves."""

    def __init__(self, engine: DeepSpeedEngine, module: nn.Module):
        super().__init__(engine, module)
        self._places = {id(parameter): (owner, start) for parameter, owner, start in self._owners()}

    def _owners(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Each parameter, the tensor that the optimizer updates for it, and where in that tensor it begins."""
        optimizer = self.engine.optimizer
        if hasattr(optimizer, "fp32_groups_flat"):  # fp16 with a fused optimizer: one flat tensor a group
            for parameters, flat in zip(optimizer.fp16_groups, optimizer.fp32_groups_flat, strict=True):
                starts = itertools.accumulate((parameter.numel() for parameter in parameters), initial=0)
                yield from zip(parameters, itertools.repeat(flat), starts, strict=False)
            return
        owners = [group["params"] for group in self.engine.basic_optimizer.param_groups]
        for parameters, own in zip(getattr(optimizer, "fp16_groups", owners), owners, strict=True):
            yield from zip(parameters, own, itertools.repeat(0), strict=False)

    def _read_one(self, name: str, moment: str | None) -> Tensor:
        parameter = self.parameters[name]
        owner, start = self._places[id(parameter)]
        numbers = owner if moment is None else self.engine.basic_optimizer.state[owner][moment]
        return numbers.detach().view(-1)[start : start + parameter.numel()].view(parameter.shape)

    def read(self, moment: str | None) -> Whole:
        return {name: self._read_one(name, moment) for name in self.parameters}

    def write(self, name: str, moment: str | None, whole: Tensor) -> None:
        self._read_one(name, moment).copy_(whole)

    def refresh_weights(self) -> None:
        for name, weight in self.read(None).items():
            self.parameters[name].data.copy_(weight)


class FlatMasters(Masters):
    """At stages 1 and 2: the parameters of a group lie one after the other in a flat tensor, of which each rank has an
    equal part."""

    def read(self, moment: str | None) -> Whole:
        # One transfer a group; DeepSpeed's own getter sums each parameter over the ranks.
        optimizer = self.engine.optimizer
        found: dict[int, Tensor] = {}
        for parameters, starts, part in zip(
            optimizer.round_robin_bit16_groups,
            optimizer.round_robin_bit16_offsets,
            optimizer.single_partition_of_fp32_groups,
            strict=True,
        ):
            own = part if moment is None else self.engine.basic_optimizer.state[part][moment]
            flat = to_master(own.detach())
            if flat is not None:
                found |= {
                    id(parameter): flat[start : start + parameter.numel()].view(parameter.shape)
                    for parameter, start in zip(parameters, starts, strict=True)
                }
        return {name: found[id(parameter)] for name, parameter in self.parameters.items()} if found else {}

    def write(self, name: str, moment: str | None, whole: Tensor) -> None:
        if moment is None:
            safe_set_full_fp32_param(self.parameters[name], whole)
        else:
            safe_set_full_optimizer_state(self.parameters[name], whole, moment)

    def refresh_weights(self) -> None:
        self.engine.optimizer.update_lp_params()


class DividedMasters(Masters):
    """At stage 3: each rank has an equal part of each parameter, the last part filled up."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(parameter.ds_shape) for name, parameter in self.parameters.items()}  # type: ignore[attr-defined]

    def _read_one(self, name: str, moment: str | None) -> Tensor:
        parameter = self.parameters[name]
        get = safe_get_full_fp32_param if moment is None else safe_get_full_optimizer_state
        return torch.as_tensor(get(parameter) if moment is None else get(parameter, moment))

    def read(self, moment: str | None) -> Whole:
        # Every rank gets each whole; of a model that is divided, only the host of one has room for all of them.
        wholes = ((name, self._read_one(name, moment)) for name in self.parameters)
        return {name: whole.cpu() for name, whole in wholes if is_master()}

    def write(self, name: str, moment: str | None, whole: Tensor) -> None:
        # DeepSpeed's own setter of whole values fails where the ranks do not divide the parameter.
        size = safe_get_local_fp32_param(self.parameters[name]).numel()
        own = whole.flatten()[rank() * size :][:size]
        part = nn.functional.pad(own, (0, size - own.numel()))
        if moment is None:
            safe_set_local_fp32_param(self.parameters[name], part)
        else:
            safe_set_local_optimizer_state(self.parameters[name], part, moment)

    def refresh_weights(self) -> None:
        for name, parameter in self.parameters.items():
            weight = self._read_one(name, None)
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0), torch.no_grad():
                if is_master():
                    parameter.copy_(weight)


class SlicedMasters(Masters):
    """Those of a `FlatModel`: slices of the masters of its flat parameters, and those of the weights that it kept."""

    def __init__(self, engine: DeepSpeedEngine, module: FlatModel, whole: Masters):
        super().__init__(engine, module)
        self._slices = module.slices
        self._whole = whole
        self._flats = [f"flats.{number}" for number in range(len(module.flats))]
        self._kept = {name.removeprefix("model."): name for name in whole.parameters if name not in self._flats}
        self._parts: dict[tuple[int, str | None], dict[str, Tensor]] = {}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        kept = {name: tuple(self._whole.parameters[own].shape) for name, own in self._kept.items()}
        return {name: own.shape for name, own in self._slices.items()} | kept

    def read(self, moment: str | None) -> Whole:
        found = self._whole.read(moment)
        if not found:
            return {}
        kept = {name: found[own] for name, own in self._kept.items()}
        return {name: own.of(found[self._flats[own.flat]]) for name, own in self._slices.items()} | kept

    def write(self, name: str, moment: str | None, whole: Tensor) -> None:
        if name in self._kept:
            self._whole.write(self._kept[name], moment, whole)
            return
        number = self._slices[name].flat
        parts = self._parts.setdefault((number, moment), {})
        parts[name] = whole.flatten()
        chunk = [other for other, own in self._slices.items() if own.flat == number]
        if len(parts) == len(chunk):  # a flat parameter is written when all of it is there
            self._whole.write(self._flats[number], moment, torch.cat([parts[other] for other in chunk]))
            del self._parts[number, moment]

    def refresh_weights(self) -> None:
        self._whole.refresh_weights()


def owners(engine: DeepSpeedEngine) -> list[Tensor]:
    """The tensors that the optimizer updates on this rank; as many at any world size."""
    if engine.zero_optimization_stage() == 3:  # the groups are empty there, but during a step
        return list(engine.optimizer.fp32_partitioned_groups_flat)
    return [tensor for group in engine.basic_optimizer.param_groups for tensor in group["params"]]


def masters_of(engine: DeepSpeedEngine) -> Masters:
    """The masters of the engine's model, by the names that its task gave them, as its ZeRO stage keeps them."""
    stage: int = engine.zero_optimization_stage()
    kinds: tuple[type[Masters], ...] = (WholeMasters, FlatMasters, FlatMasters, DividedMasters)
    if isinstance(engine.module, FlatModel):
        return SlicedMasters(engine, engine.module, kinds[stage](engine, engine.module))
    return kinds[stage](engine, plain_module(engine))
