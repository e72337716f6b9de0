"""What is summed over the steps of an epoch, and survives a stop in its middle."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ds_trainer.distributed import device, gathered, is_master, rank, world_size


def _zero() -> Tensor:
    return torch.zeros((), dtype=torch.float64, device=device())


@dataclass
class EpochSums:
    """What was summed over the steps of an epoch so far, on the device, so that nothing waits for it.

    What is not finite is left out: one bad batch must not hide the rest of an epoch.

    Args:
        loss, num_examples: of this rank's examples.
        num_skipped: steps whose update was skipped.
        gradient_norm: of the others; None where the engine computes none.
        learning_rate: of the last step.
    """

    loss: Tensor
    num_examples: Tensor
    num_skipped: Tensor
    gradient_norm: Tensor | None
    num_steps: int = 0
    learning_rate: float = 0.0

    @classmethod
    def of_nothing(cls) -> "EpochSums":
        """At the start of an epoch."""
        return cls(_zero(), _zero(), _zero(), _zero())

    def add_loss(self, loss: Tensor, num_examples: int) -> None:
        """Add the summed loss of a micro-batch of this rank."""
        is_finite = torch.isfinite(loss)
        self.loss += torch.where(is_finite, loss, 0.0)
        self.num_examples += is_finite * num_examples

    def add_step(self, norm: Tensor | float | None, learning_rate: float) -> None:
        """Count a step."""
        self.num_steps += 1
        self.learning_rate = learning_rate
        if norm is None or self.gradient_norm is None:
            self.gradient_norm = None
        else:
            norm = torch.as_tensor(norm, device=self.gradient_norm.device)
            self.gradient_norm += torch.where(torch.isfinite(norm), norm, 0.0)

    def add_skipped(self, skipped: Tensor) -> None:
        """Count a step whose update was skipped: float32[], 1 or 0."""
        self.num_skipped += skipped

    def mean_gradient_norm(self) -> float | None:
        """Over the steps so far that were not skipped."""
        num_taken = self.num_steps - int(self.num_skipped)
        return None if self.gradient_norm is None or num_taken == 0 else float(self.gradient_norm) / num_taken

    def loss_and_examples(self) -> Tensor:
        """float64[2]: of this rank."""
        return torch.stack([self.loss, self.num_examples])

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, with the losses of each rank. Collective."""
        return {
            "num_steps": self.num_steps,
            "losses_and_examples": gathered(self.loss_and_examples().tolist()),
            "num_skipped": float(self.num_skipped),
            "norm": None if self.gradient_norm is None else float(self.gradient_norm),
            "learning_rate": self.learning_rate,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "EpochSums":
        """What `state_dict` saved: on each rank its own losses, or all of them on the master of another world size."""
        by_rank = state["losses_and_examples"]
        if len(by_rank) == world_size():
            own = by_rank[rank()]
        else:
            own = [sum(column) for column in zip(*by_rank, strict=True)] if is_master() else [0.0, 0.0]
        norm = state["norm"]
        return cls(
            loss=_zero() + own[0],
            num_examples=_zero() + own[1],
            num_skipped=_zero() + state["num_skipped"],
            gradient_norm=None if norm is None else _zero() + norm,
            num_steps=state["num_steps"],
            learning_rate=state["learning_rate"],
        )
