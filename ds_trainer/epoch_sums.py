"""What is summed over the steps of an epoch, and survives a stop in its middle."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ds_trainer.distributed import gathered, is_master, rank, world_size


@dataclass
class EpochSums:
    """What was summed over the steps of an epoch so far, on the device, so that nothing waits for it.

    Args:
        loss: of this rank's examples.
        gradient_norm: None where the engine computes none.
        learning_rate: of the last step.
    """

    num_steps: int = 0
    loss: Tensor | float = 0.0
    gradient_norm: Tensor | float | None = 0.0
    learning_rate: float = 0.0

    def add(self, norm: Tensor | float | None, learning_rate: float) -> None:
        """Count a step."""
        self.num_steps += 1
        self.learning_rate = learning_rate
        is_known = norm is not None and self.gradient_norm is not None
        self.gradient_norm = self.gradient_norm + norm if is_known else None  # type: ignore[operator]

    def mean_gradient_norm(self) -> float | None:
        """Over the steps so far."""
        is_known = self.gradient_norm is not None and self.num_steps > 0
        return float(self.gradient_norm) / self.num_steps if is_known else None  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, with the loss of each rank. Collective."""
        norm = None if self.gradient_norm is None else float(self.gradient_norm)
        losses = gathered(float(self.loss))
        return {"num_steps": self.num_steps, "losses": losses, "norm": norm, "learning_rate": self.learning_rate}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "EpochSums":
        """What `state_dict` saved: on each rank its own loss, or all of them on the master of another world size."""
        losses = state["losses"]
        loss = losses[rank()] if len(losses) == world_size() else sum(losses) if is_master() else 0.0
        return cls(state["num_steps"], loss, state["norm"], state["learning_rate"])
