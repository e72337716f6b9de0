"""Runs a micro-step of a bad batch again, as the engine did, on one process and without the engine.

Axes: B clips of the micro-batch, those included that only fill it up.
"""

import contextlib
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ds_trainer.batches import Batch, BatchLoader, MicroStep, ShardedSampler, size_of
from ds_trainer.distributed import device
from ds_trainer.engine.flat_model import can_be_flat
from ds_trainer.engine.precision import (
    ComputesInFloat32,
    buffer_dtype,
    cast_floats,
    computes_in_float32,
    exact_statistics,
)
from ds_trainer.objective import Objective
from ds_trainer.randomness import seed_torch
from ds_trainer.replay.files import EnginePrecision, SavedMicroStep, SavedStep
from ds_trainer.replay.gradients import Gradients, trace_gradients
from ds_trainer.replay.looks import Look, looks_at, parts_of
from ds_trainer.replay.trace import Call, ForwardTrace, first_fault
from ds_trainer.task import Task

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Precision:
    """In what the engine keeps weights and buffers, and computes.

    Args:
        buffers: None leaves them as the model made them.
        has_exact_statistics: those that layers normalise by stay as the model made them.
        autocast: what `torch.autocast` is to choose; None without it.
        arithmetic: what inputs are cast to, and weights as well if it is not theirs.
    """

    weights: torch.dtype = torch.float32
    buffers: torch.dtype | None = None
    has_exact_statistics: bool = False
    autocast: torch.dtype | None = None
    arithmetic: torch.dtype = torch.float32

    @classmethod
    def of(cls, engine_config: Mapping[str, Any]) -> "Precision":
        """What an engine config, and this machine, make of it."""
        said = EnginePrecision.model_validate(engine_config)
        weights = torch.float16 if said.fp16.enabled else torch.bfloat16 if said.bf16.enabled else torch.float32
        buffers = buffer_dtype(engine_config)
        return cls(
            weights,
            buffers=None if buffers is None else _DTYPES[buffers],
            has_exact_statistics=can_be_flat(engine_config),
            autocast=torch.bfloat16 if said.torch_autocast.enabled else None,
            arithmetic=torch.float32 if computes_in_float32(engine_config) else weights,
        )

    @property
    def has_16_bits(self) -> bool:
        """Whether something in it is shorter than float32."""
        return self.weights != torch.float32 or self.autocast is not None

    @property
    def short_name(self) -> str:
        """The type that is shorter than float32, or float32."""
        return str(self.autocast or self.weights).removeprefix("torch.")


class Replica:
    """A model on this machine's device that computes as the engine does.

    Args:
        model: a new one, in float32; it is changed.
    """

    def __init__(self, model: nn.Module, precision: Precision):
        self.model = model.to(device())
        self._precision = precision
        with exact_statistics(model) if precision.has_exact_statistics else contextlib.nullcontext():
            for parameter in model.parameters():
                parameter.data = cast_floats(parameter.data, precision.weights)
            for buffer in model.buffers():
                buffer.data = cast_floats(buffer.data, precision.buffers or buffer.dtype)
        is_read_otherwise = precision.arithmetic != precision.weights
        self._computing = ComputesInFloat32(model) if is_read_otherwise else model

    def __call__(self, *inputs: Any) -> Any:
        """What the model makes of `inputs`, in float32."""
        autocast = self._precision.autocast
        with torch.autocast(device().type, dtype=autocast) if autocast else contextlib.nullcontext():
            return cast_floats(self._computing(*cast_floats(inputs, self._precision.arithmetic)), torch.float32)

    def bad_weights(self) -> list[str]:
        """The weights that are not finite themselves."""
        state = self.model.state_dict()
        return [name for name, weight in state.items() if any(look.num_bad for look in looks_at(weight, 0))]

    def gradient_norm(self) -> float:
        """Of all gradients that were added up."""
        gradients = [parameter.grad.float() for parameter in self.model.parameters() if parameter.grad is not None]
        norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
        return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0


class _SavedSampler(ShardedSampler):
    """Of one micro-step, as the rank that passed it had it: so the loader of training gives the same batch again."""

    def __init__(self, step: SavedStep, micro_step: SavedMicroStep, num_examples: int, is_augmented: bool):
        super().__init__(num_examples, len(micro_step.indices), seed=step.seed if is_augmented else None)
        self.rank, self.world_size = micro_step.rank, step.world_size
        self.set_epoch(step.epoch)
        self._micro_step = MicroStep(
            list(micro_step.indices),
            micro_step.num_real,
            examples_in_step=max(1, round(step.world_size / micro_step.share)),
            ends_step=True,
            number=micro_step.number,
        )

    def __iter__(self) -> Iterator[MicroStep]:
        yield self._micro_step


def saved_batches(task: Task, step: SavedStep, micro_step: SavedMicroStep, is_augmented: bool = True) -> BatchLoader:
    """A loader of one batch: that of a saved micro-step, as training saw it, or as the data is."""
    sampler = _SavedSampler(step, micro_step, size_of(task.train_set), is_augmented)
    return BatchLoader(task.train_set, sampler, task.prepare, task.collate)


def looks_at_clip(batch: Batch, place: int) -> tuple[list[Look], list[Look]]:
    """What the inputs and the targets of a clip are like; tensors without an axis of clips are left out."""
    inputs, targets = (_rows(value, place, len(batch.index_B)) for value in (batch.inputs, batch.targets))
    return looks_at(inputs, 0), looks_at(targets, 0)


def _rows(value: Any, place: int, num_clips: int) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value[place]] if value.dim() and len(value) == num_clips else []
    return [row for part in parts_of(value) for row in _rows(part, place, num_clips)]


@dataclass(frozen=True)
class Finding:
    """What became of a micro-step.

    Args:
        losses: of each clip, those included that fill up.
        loss: their sum, over those that count.
        call: the first that made something that is not finite; None if there is none, or none is to blame.
        gradients: None if the loss is not finite.
    """

    losses: list[float]
    loss: float
    call: Call | None = None
    gradients: Gradients | None = None

    @property
    def is_finite(self) -> bool:
        """Whether nothing bad was found."""
        return self.gradients is not None and self.gradients.fault is None

    def sound_clips(self) -> frozenset[int]:
        """Places of the clips whose loss is finite."""
        return frozenset(place for place, loss in enumerate(self.losses) if math.isfinite(loss))

    def blamed_clips(self) -> list[int] | None:
        """Places of the clips in the micro-batch; None if that cannot be told."""
        bad = sorted(set(range(len(self.losses))) - self.sound_clips())
        if bad or self.gradients is None or self.gradients.fault is None:
            return bad
        clips = self.gradients.fault.bad_clips()
        return None if clips is None else sorted(clips)


def _uncompiled() -> contextlib.AbstractContextManager[Any]:
    """Compiled code cannot be looked into; and importing the compiler for a model without any would take seconds."""
    is_loaded = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if is_loaded else contextlib.nullcontext()


def run_micro_step(replica: Replica, objective: Objective, batch: Batch, micro_step: SavedMicroStep) -> Finding:
    """Forward and backward as in `loop.micro_step`, looking at everything on its way."""
    num_clips = len(batch.index_B)
    seed_torch(micro_step.dropout_seed)
    with _uncompiled(), ForwardTrace(replica.model, num_clips) as trace:
        outputs = replica(*batch.inputs)
        losses_B = trace.call_loss(objective.minimised, outputs, batch.targets)
    loss = (losses_B * batch.weight_B).sum()
    finding = Finding(losses_B.tolist(), loss.item())
    if not math.isfinite(finding.loss):
        return replace(finding, call=first_fault(trace.modules, finding.sound_clips()))
    gradients = trace_gradients(loss * micro_step.share, replica.model, trace.made_by, num_clips)
    return replace(finding, gradients=gradients)
