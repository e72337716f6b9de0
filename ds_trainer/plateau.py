"""The learning rate: a warm-up, and behind it the plateau scheduler, both layered on top of the engine."""

from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
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


def warm_up(engine: "DeepSpeedEngine", num_steps: int) -> None:
    """Raise the learning rate in a straight line over the first steps, to what the engine config says.

    Until it is there, the plateau changes nothing: its rate is overwritten at the next step. The steps are those that
    the engine counts, so that a continued run goes on where it was.
    """
    if num_steps == 0:
        return
    for group in engine.basic_optimizer.param_groups:
        group["full_lr"] = group["lr"]

    def rise(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if engine.global_steps < num_steps:
            for group in optimizer.param_groups:  # ZeRO steps one group at a time, and shows no other meanwhile
                group["lr"] = group["full_lr"] * (engine.global_steps + 1) / num_steps

    engine.basic_optimizer.register_step_pre_hook(rise)
