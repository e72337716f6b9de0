"""The plateau scheduler, layered on top of the engine."""

from typing import TYPE_CHECKING

from torch.optim.lr_scheduler import ReduceLROnPlateau

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


def build_plateau(engine: "DeepSpeedEngine", factor: float, patience: int) -> ReduceLROnPlateau:
    """Multiply the learning rate by `factor` after more than `patience` epochs without a lower validation loss.

    Step it with the all-reduced loss: with a loss of its own on each rank, ZeRO runs two learning rates without a word.
    It works on `engine.basic_optimizer`, whose parameter groups the ZeRO optimizer shares; `engine.optimizer` is no
    `torch.optim.Optimizer`, and a plateau given to `deepspeed.initialize` is stepped at every step with the batch size
    for its metric (all seen with deepspeed 0.19.8).
    """
    return ReduceLROnPlateau(engine.basic_optimizer, mode="min", factor=factor, patience=patience)
