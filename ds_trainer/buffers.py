"""What a model keeps beside its weights, such as running statistics: the same on all ranks, and nothing of a bad batch.

Buffers that no checkpoint holds are left alone: they may have any shape, and another on each rank.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ds_trainer.distributed import from_master


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
            (layer, name): getattr(layer, name).clone()
            for layer, name in _kept(model)
            if getattr(layer, name).is_floating_point()
        }

    @torch.no_grad()
    def after_step(self, was_skipped: Tensor) -> None:
        """Settle a step. All are looked at: torch changes statistics without counting it as a version.

        Args:
            was_skipped: [], above 0 if it was, on the device: it is not waited for.
        """
        for (layer, name), held in self._held.items():
            buffer: Tensor = getattr(layer, name)
            if buffer.shape == held.shape:
                buffer.copy_(torch.where(was_skipped > 0, held, buffer))
            self._held[layer, name] = buffer.clone()
