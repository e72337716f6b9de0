"""A step whose gradient is not finite is skipped, and nothing waits for the device to find out.

DeepSpeed's own check looks through every gradient tensor and reads the answer on the host; and at stage 0 in float32
nothing is checked, so that one NaN poisons the weights (seen with deepspeed 0.19.8). Here the norm of the gradient,
which every rank knows anyway, tells: torch's fused optimizers leave weights, moments and the count of steps as they are
where a number on the device says so. ZeRO 1 and 2 ask the host whether that norm is finite, too, for each group of
weights twice; they are given an answer that needs no waiting.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from deepspeed.runtime.zero import stage_1_and_2
from torch import Tensor
from torch.optim import Optimizer

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


def skips_on_device(optimizer: Mapping[str, Any], zero: Mapping[str, Any]) -> bool:
    """Whether an optimizer can leave out an update because a number on the device says so: torch's own, fused.

    Args:
        optimizer: the block of that name of an engine config.
        zero: its block `zero_optimization`.
    """
    params = optimizer["params"]
    is_offloaded = (zero.get("offload_optimizer") or {}).get("device", "none") != "none"
    is_fused = params.get("fused", not params.get("foreach", False))
    return bool(params.get("torch_adam", True) and is_fused and not is_offloaded)


def skip_non_finite(engine: "DeepSpeedEngine") -> None:
    """Have the engine's optimizer, which must be one that `skips_on_device`, skip non-finite gradients."""
    engine.basic_optimizer.found_inf = torch.zeros((), device=engine.device)
    steps_seen = -1

    def look(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal steps_seen
        if engine.global_steps == steps_seen:
            return  # ZeRO steps the groups of parameters one by one
        steps_seen = engine.global_steps
        # On all ranks the same: either the norm is over all of them, or the gradients are summed already.
        norm = getattr(engine.optimizer, "_global_grad_norm", None)
        if norm is None:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        engine.basic_optimizer.found_inf.copy_(~torch.isfinite(torch.as_tensor(norm)))

    engine.basic_optimizer.register_step_pre_hook(look)
    _ask_nothing(engine.optimizer)


def _ask_nothing(optimizer: Any) -> None:
    """Have DeepSpeed's optimizer of ZeRO 1 and 2 clip gradients as before, and wait for the device no more.

    A norm that is not finite is infinite to it, as before, and what is clipped by that is skipped.
    """
    if not isinstance(optimizer, stage_1_and_2.DeepSpeedZeroOptimizer):
        return
    answers: Mapping[str, Callable[..., Any]] = {
        "is_invalid_grad_norm": lambda norm: False,
        "mask_nan_or_inf_with_val_inplace": _mark,
    }

    def without_waiting(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            with replaced(stage_1_and_2, answers):
                return method(*args, **kwargs)

        return call

    for name in ("get_grad_norm_direct", "unscale_and_clip_grads"):
        setattr(optimizer, name, without_waiting(getattr(optimizer, name)))


@contextmanager
def replaced(owner: ModuleType | type, functions: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Functions of DeepSpeed's module or class by these names, within; those that another version lacks stay away."""
    before = {name: getattr(owner, name) for name in functions if hasattr(owner, name)}
    for name in before:
        setattr(owner, name, functions[name])
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(owner, name, function)


def _mark(norm: Tensor, device: Any = None, val: float = -1.0) -> None:
    """What is not finite becomes infinite, in place: DeepSpeed's own takes a -1 for that, copied from the host."""
    norm.masked_fill_(~norm.isfinite(), math.inf)


def seeks_loss_scale(engine: "DeepSpeedEngine") -> bool:
    """Whether losses are scaled for float16, by as much as gradients stay finite, which only skipped steps find out."""
    return bool(engine.fp16_enabled() and engine.dynamic_loss_scale())


def was_skipped(engine: "DeepSpeedEngine") -> Tensor:
    """float32[], 1 if the update of the last step was skipped, else 0; on the device: reading it would synchronise."""
    if not engine.was_step_applied():  # DeepSpeed found out by itself, on the host
        return torch.ones((), device=engine.device)
    found: Tensor | None = getattr(engine.basic_optimizer, "found_inf", None)
    return torch.zeros((), device=engine.device) if found is None else found.clone()
