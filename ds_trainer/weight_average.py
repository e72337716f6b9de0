"""An average of the weights over the last steps, which is validated and saved in their place where it is kept.

Each rank averages the float32 masters that its part of the optimizer updates. The averages lie beside the optimizer's
moments, so that a resume point holds them, and continues from them on any number of ranks.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from ds_trainer.engine.masters import masters_of, owners
from ds_trainer.run.resume_points import AVERAGE

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


def average_weights(engine: "DeepSpeedEngine", decay: float) -> None:
    """Keep an exponential moving average of the weights from now on.

    At first it follows faster, by (1 + steps) / (10 + steps), so that it forgets the weights that training began with.

    Args:
        decay: the fraction of the average that a step leaves; 0: keep none.
    """
    if decay == 0:
        return

    def follow(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        masters = [master for group in optimizer.param_groups for master in group["params"]]  # under ZeRO some of them
        left = min(decay, (1 + engine.global_steps) / (10 + engine.global_steps))
        found_inf = getattr(optimizer, "found_inf", None)
        # A skipped step leaves the average, too.
        weight = 1 - left if found_inf is None else (1 - left) * (1 - found_inf)
        for master in masters:
            state = optimizer.state[master]
            if AVERAGE not in state:
                state[AVERAGE] = master.detach().clone()
            state[AVERAGE].lerp_(master.detach(), weight)

    engine.basic_optimizer.register_step_post_hook(follow)


@contextlib.contextmanager
def averaged_weights(engine: "DeepSpeedEngine") -> Iterator[None]:
    """Within, the model has the averaged weights, where an average is kept. Collective, at both ends."""
    has_average = any(AVERAGE in state for state in engine.basic_optimizer.state.values())
    if has_average:
        _swap(engine)
    yield
    if has_average:
        _swap(engine)


@torch.no_grad()
def _swap(engine: "DeepSpeedEngine") -> None:
    for master in owners(engine):
        average = engine.basic_optimizer.state[master][AVERAGE]
        held = master.detach().clone()
        master.copy_(average)
        average.copy_(held)
    masters_of(engine).refresh_weights()
