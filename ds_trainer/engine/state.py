"""What an engine continues from: weights, the optimizer's moments and counters, whole, by the plain module's names.

Not DeepSpeed's own checkpoint, which is one file a rank, tied to the number of ranks, with a pickle in it. Whole
tensors continue on any number of ranks without conversion (the universal checkpoint knows neither stage 0 nor buffers),
and are read without running code. While they are written they take 12 bytes a parameter on the master's host, with
Adam.
"""

from collections.abc import Mapping
from typing import Any

import deepspeed
import torch
from deepspeed import DeepSpeedEngine
from torch import Tensor, nn

from ds_trainer import distributed
from ds_trainer.engine.engine import plain_module, state_names
from ds_trainer.engine.masters import Masters, masters_of, owners
from ds_trainer.engine.parameter_groups import factors
from ds_trainer.errors import CheckpointError

State = dict[str, Any]
_LARGE = ("weights", "moments")
_COUNTERS = ("global_steps", "global_samples", "skipped_steps")


def full_precision_state(engine: DeepSpeedEngine) -> dict[str, Tensor]:
    """The model's state in float32, on the CPU of the master rank; elsewhere empty. Collective.

    Under the plain module's names. The optimizer's float32 masters are what training continues from; rounded to bf16
    they are off by up to 0.4 %.
    """
    masters = masters_of(engine)
    weights, (frozen, buffers) = masters.read(None), _others(engine, masters)
    if not distributed.is_master():
        return {}
    names = state_names(engine)
    others = frozen | buffers
    state = {name: weights[own] if own in weights else others[name] for name, own in names.items()}
    return {name: _on_cpu(value.float() if value.is_floating_point() else value) for name, value in state.items()}


def engine_state(engine: DeepSpeedEngine) -> State:
    """What `load_engine_state` continues from, on the CPU of the master rank; elsewhere empty. Collective."""
    masters = masters_of(engine)
    frozen, own_buffers = _others(engine, masters)
    buffers, *of_other_ranks = distributed.gathered(own_buffers)
    state: State = {
        "weights": _read(masters, None),
        "moments": {moment: _read(masters, moment) for moment in _moment_names(engine)},
        "others": [frozen | buffers, *of_other_ranks],
        "scalars": _scalars(engine),
        "learning_rate_factors": factors(engine.basic_optimizer.param_groups),
        "learning_rates": [float(group["lr"]) for group in engine.basic_optimizer.param_groups],
        "counters": {name: getattr(engine, name) for name in _COUNTERS},
        "loss_scale": _loss_scale(engine),
    }
    return state if distributed.is_master() else {}


def load_engine_state(engine: DeepSpeedEngine, state: State) -> None:
    """Go on from `state`, which only the master rank needs. Collective.

    Raises:
        CheckpointError: it is of another model.
    """
    masters = masters_of(engine)
    small = distributed.agreed(lambda: _small_part(state, masters, factors(engine.basic_optimizer.param_groups)))
    _create_moments(engine, small["moment names"], small["scalars"])
    for name, shape in masters.shapes().items():
        for moment in (None, *small["moment names"]):
            value = torch.empty(shape, dtype=torch.float32, device=engine.device)
            if distributed.is_master():
                value.copy_(state["weights"][name] if moment is None else state["moments"][moment][name])
            masters.write(name, moment, distributed.from_master(value))
    masters.refresh_weights()
    is_same_world = len(small["others"]) == distributed.world_size()
    own = small["others"][distributed.rank() if is_same_world else 0]
    _set_others(engine, small["others"][0] | own)  # frozen parameters stand in the first alone
    for group, rate in zip(engine.basic_optimizer.param_groups, small["learning_rates"], strict=True):
        group["lr"] = rate
    for name, value in small["counters"].items():
        setattr(engine, name, value)
    for scaler in _loss_scalers(engine):
        vars(scaler).update(small["loss_scale"])


def _small_part(state: State, masters: Masters, own_factors: list[float]) -> State:
    """All but the tensors of `state`, after a look whether it fits."""
    saved_factors = state.get("learning_rate_factors", own_factors)  # one of an earlier version has none
    if saved_factors != own_factors:
        raise CheckpointError(
            f"the resume point is of weights at {saved_factors} of the learning rate, now {own_factors} (the task's "
            "learning_rate_factor); go back to the code it was made with, or start afresh"
        )
    own = masters.shapes()
    for numbers in (state["weights"], *state["moments"].values()):
        saved = {name: tuple(value.shape) for name, value in numbers.items()}
        differing = sorted(name for name in saved.keys() | own.keys() if saved.get(name) != own.get(name))
        if differing:
            name = differing[0]
            raise CheckpointError(
                f"the resume point is of another model: {len(differing)} parameters differ, such as {name}: saved with "
                f"shape {saved.get(name)}, now {own.get(name)}; go back to the code it was made with, or start afresh"
            )
    small = {key: value for key, value in state.items() if key not in _LARGE}
    return small | {"moment names": sorted(state["moments"])}


def _read(masters: Masters, moment: str | None) -> dict[str, Tensor]:
    """Of every parameter, on the CPU of the master rank. Collective."""
    values = masters.read(moment)
    return {name: _on_cpu(value) for name, value in values.items()} if distributed.is_master() else {}


def _on_cpu(value: Tensor) -> Tensor:
    return value.detach().to("cpu", copy=True)


def _others(engine: DeepSpeedEngine, masters: Masters) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What has no master: frozen parameters, on the master rank alone, and buffers. Collective at ZeRO stage 3.

    In their own precision. Frozen parameters are equal on all ranks, and may be most of a model.
    """
    frozen = _frozen(engine)
    known = set(map(id, frozen))
    module, trained, names = plain_module(engine), masters.shapes(), state_names(engine)
    with deepspeed.zero.GatheredParameters(frozen, enabled=any(hasattr(parameter, "ds_id") for parameter in frozen)):
        state = module.state_dict(keep_vars=True)
        others = {name: value for name, value in state.items() if names[name] not in trained}
        buffers = {name: _on_cpu(value) for name, value in others.items() if id(value) not in known}
        if not distributed.is_master():
            return {}, buffers
        return {name: _on_cpu(value) for name, value in others.items() if id(value) in known}, buffers


def _frozen(engine: DeepSpeedEngine) -> list[nn.Parameter]:
    return [parameter for parameter in engine.module.parameters() if not parameter.requires_grad]


def _set_others(engine: DeepSpeedEngine, others: Mapping[str, Tensor]) -> None:
    module, frozen = plain_module(engine), _frozen(engine)
    is_divided = any(hasattr(parameter, "ds_id") for parameter in frozen)
    with deepspeed.zero.GatheredParameters(frozen, modifier_rank=0, enabled=is_divided), torch.no_grad():
        own = module.state_dict()
        for name, value in others.items():
            own[name].copy_(value)


def _moment_names(engine: DeepSpeedEngine) -> list[str]:
    """The optimizer's states that have the shape of the weights; none before its first step."""
    states = engine.basic_optimizer.state.values()
    return sorted({key for state in states for key, value in state.items() if torch.is_tensor(value) and value.dim()})


def _scalars(engine: DeepSpeedEngine) -> list[State]:
    """The optimizer's other states, such as the count of steps, for each tensor that it updates."""
    states = [engine.basic_optimizer.state.get(owner, {}) for owner in owners(engine)]
    return [
        {key: _on_cpu(value) if torch.is_tensor(value) else value for key, value in state.items() if _is_scalar(value)}
        for state in states
    ]


def _is_scalar(value: Any) -> bool:
    return not (torch.is_tensor(value) and value.dim())


def _create_moments(engine: DeepSpeedEngine, moments: list[str], scalars: list[State]) -> None:
    """The states of an optimizer that has taken no step yet."""
    optimizer = engine.basic_optimizer
    # torch keeps the count of steps beside the weights for a fused optimizer, on the CPU for others.
    is_fused = any(optimizer.defaults.get(name) for name in ("fused", "capturable"))
    for owner, own_scalars in zip(owners(engine), scalars, strict=True):
        state = optimizer.state[owner]
        for moment in moments:
            state.setdefault(moment, torch.zeros_like(owner))
        device = owner.device if is_fused else torch.device("cpu")
        for key, value in own_scalars.items():
            state[key] = value.to(device) if torch.is_tensor(value) else value
    if moments and hasattr(engine.optimizer, "_lazy_init_hp_params_optimizer_state"):
        engine.optimizer._lazy_init_hp_params_optimizer_state()


def _loss_scalers(engine: DeepSpeedEngine) -> list[Any]:
    """Where DeepSpeed counts for the dynamic loss scale of fp16: ZeRO has one place for it, stage 0 another."""
    found = [getattr(engine.optimizer, name, None) for name in ("loss_scaler", "loss_scale_config")]
    return [scaler for scaler in found if scaler is not None]


def _loss_scale(engine: DeepSpeedEngine) -> State:
    counts = [vars(scaler) for scaler in _loss_scalers(engine)]
    return {name: value for own in counts for name, value in own.items() if isinstance(value, bool | int | float)}
