"""The learning rate: the plateau scheduler, a warm-up and a cool-down, all layered on top of the engine."""

from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


def build_plateau(engine: "DeepSpeedEngine", factor: float, patience: int) -> ReduceLROnPlateau:
    """Multiply the learning rate by `factor` after more than `patience` epochs without a lower validation loss.

    By 0.01 % at least, as torch counts by default: a smaller gain is none.

    Step it with the all-reduced loss: with a loss of its own on each rank, ZeRO runs two learning rates without a word.
    It works on `engine.basic_optimizer`, whose parameter groups the ZeRO optimizer shares; `engine.optimizer` is no
    `torch.optim.Optimizer`, and a plateau given to `deepspeed.initialize` is stepped at every step with the batch size
    for its metric (all seen with deepspeed 0.19.8).
    """
    return ReduceLROnPlateau(engine.basic_optimizer, mode="min", factor=factor, patience=patience)


def warm_up_and_cool_down(engine: "DeepSpeedEngine", num_steps: int, num_warmup: int, num_cooldown: int) -> None:
    """Raise the learning rate in a straight line over the first steps, and lower it to 0 over the last ones.

    Each step takes a fraction of the rate that the engine config and the plateau say, which is there again behind the
    step. The steps are those that the engine counts, so that a continued run goes on where it was.

    Args:
        num_steps: of the whole run.
        num_warmup: of the first steps; 0: the first has the full rate.
        num_cooldown: of the last steps, at most all; 0: the last has the full rate.
    """
    if num_warmup == num_cooldown == 0:
        return

    def lower(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        fraction = rate_fraction(engine.global_steps, num_steps, num_warmup, num_cooldown)
        for group in optimizer.param_groups:  # ZeRO steps one group at a time, and shows no other meanwhile
            group["full_lr"], group["lr"] = group["lr"], group["lr"] * fraction

    def restore(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for group in optimizer.param_groups:
            group["last_lr"], group["lr"] = group["lr"], group["full_lr"]

    engine.basic_optimizer.register_step_pre_hook(lower)
    engine.basic_optimizer.register_step_post_hook(restore)


def rate_fraction(step: int, num_steps: int, num_warmup: int, num_cooldown: int) -> float:
    """What a step, counted from 0, takes of the full learning rate: 0 to 1."""
    risen = (step + 1) / num_warmup if step < num_warmup else 1.0
    left, num_falling = max(num_steps - step, 0), min(num_cooldown, num_steps)
    return min(risen, left / num_falling if left < num_falling else 1.0)
