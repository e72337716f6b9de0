"""What a model keeps beside its weights, such as running statistics: the same on all ranks, and nothing of a bad batch.

Buffers that no checkpoint holds are left alone: they may have any shape, and another on each rank.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ds_trainer.distributed import from_master
from ds_trainer.engine.precision import has_statistics


def _kept(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """The buffers that a checkpoint holds, by layer and name: a layer may put another tensor in its place."""
    for layer in model.modules():
        for name, _ in layer.named_buffers(recurse=False):
            if name not in layer._non_persistent_buffers_set:
                yield layer, name


def share_buffers(model: nn.Module) -> None:
    """Give every rank the master's. Collective.

    Each rank's are of the batches that it saw, and what is validated must be what is saved.
    """
    for layer, name in _kept(model):
        from_master(getattr(layer, name).data)


class HeldBuffers:
    """Takes back what a skipped step did to buffers: one NaN would stay in running statistics for ever."""

    def __init__(self, model: nn.Module):
        self._held = {
            (layer, name): _Held.of(getattr(layer, name))
            for layer, name in _kept(model)
            if getattr(layer, name).is_floating_point()
        }

    @torch.no_grad()
    def after_step(self, was_skipped: Tensor) -> None:
        """Settle a step.

        Args:
            was_skipped: [], above 0 if it was, on the device: it is not waited for.
        """
        for (layer, name), held in self._held.items():
            buffer: Tensor = getattr(layer, name)
            if held.is_of(buffer) and not _changes_unseen(layer):
                continue  # such as a large table
            if buffer.shape == held.numbers.shape:
                buffer.copy_(torch.where(was_skipped > 0, held.numbers, buffer))
            self._held[layer, name] = _Held.of(buffer)


class _Held(NamedTuple):
    """A buffer as it was at some moment."""

    buffer: Tensor
    version: int
    numbers: Tensor

    @classmethod
    def of(cls, buffer: Tensor) -> "_Held":
        return cls(buffer, buffer._version, buffer.clone())

    def is_of(self, buffer: Tensor) -> bool:
        return buffer is self.buffer and buffer._version == self.version


def _changes_unseen(layer: nn.Module) -> bool:
    """Whether torch changes a layer's buffers without counting that as a version: statistics, and what is scripted."""
    return has_statistics(layer) or isinstance(layer, torch.jit.ScriptModule)
