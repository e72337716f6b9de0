"""The only caller of `deepspeed.initialize`, and the few things that one has to know of an engine.

DeepSpeed's behaviours that are worked around here were seen with deepspeed 0.19.8.
"""

import contextlib
import importlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine
from deepspeed.accelerator import cuda_accelerator
from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus
from deepspeed.utils import groups
from torch import Tensor, nn

from ds_trainer.distributed import from_master, world_size
from ds_trainer.engine.compilation import compile_model
from ds_trainer.engine.flat_model import FlatModel, can_be_flat
from ds_trainer.engine.flat_model import state_names as names_of_state
from ds_trainer.engine.monitors import without_monitors
from ds_trainer.engine.op_building import no_lock_outlives_its_process
from ds_trainer.engine.parameter_groups import full_learning_rate, parameter_groups, treatments
from ds_trainer.engine.precision import (
    ComputesInFloat32,
    buffer_dtype,
    cast_floats,
    computes_in_float32,
    exact_statistics,
)
from ds_trainer.engine.skipping import replaced, skip_non_finite, skips_on_device

if not torch.cuda.is_available():
    # On CPU this op is compiled at first use (30-180 s) and serves inference only; off, training uses gloo as it would
    # anyway. A GPU has none such, and to ask for any op has DeepSpeed ask the compiler about all of them.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def build_engine(
    model: nn.Module,
    config: Mapping[str, Any],
    is_verbose: bool = False,
    is_compiled: bool = False,
    learning_rate_factor: Callable[[str], float] = lambda name: 1.0,
) -> DeepSpeedEngine:
    """An engine that trains `model` as the resolved engine config says. Collective.

    Floating-point inputs are cast to the type in which the model computes, and its outputs to float32: DeepSpeed's bf16
    mode casts parameters only. Losses and metrics are then computed in float32 for every precision.
    """
    logging.getLogger("DeepSpeed").setLevel(logging.INFO if is_verbose else logging.WARNING)
    _forget_left_groups()
    if is_compiled:
        compile_model(model)  # before the import below, within which torch.compile is off: torch reads that switch once
    _import_muon()
    _ask_torch_for_memory()
    arithmetic = torch.float32 if computes_in_float32(config) else None
    module, is_flat, treatment_of = model, can_be_flat(config), treatments(model, learning_rate_factor)
    if is_flat:
        most_numbers = config["zero_optimization"]["reduce_bucket_size"]
        module = flat = FlatModel(model, most_numbers, arithmetic, treatment_of)
        treatment_of = flat.treatment_of
    elif arithmetic is not None:
        module = ComputesInFloat32(model)
    sending = replaced(DeepSpeedEngine, {"_broadcast_model": _send_weights})
    statistics = exact_statistics(model) if is_flat else contextlib.nullcontext()
    with statistics, sending, no_lock_outlives_its_process():
        groups = parameter_groups(module.parameters(), treatment_of, config["optimizer"]["params"]["lr"])
        engine, *_ = deepspeed.initialize(model=module, model_parameters=groups, config=_for_deepspeed(config))
    _forget_first_step(engine)
    if skips_on_device(config["optimizer"], config["zero_optimization"]):
        skip_non_finite(engine)
    _forget_gradients_after_steps(engine.optimizer)
    dtype = arithmetic or engine.get_data_types()[0]
    engine.module.register_forward_pre_hook(lambda module, inputs: cast_floats(inputs, dtype))
    engine.module.register_forward_hook(lambda module, inputs, outputs: cast_floats(outputs, torch.float32))
    return engine


@contextlib.contextmanager
def released(engine: DeepSpeedEngine) -> Iterator[None]:
    """Take off in the end the hooks of an engine that would keep it, and its memory, for as long as the process runs.

    At ZeRO-3 DeepSpeed keeps it all the same. After an error of several ranks it is left as it is: that would wait for
    the device, and this for a rank that may be gone.
    """
    is_orderly = world_size() == 1
    try:
        yield
        is_orderly = True
    finally:
        if is_orderly:
            with contextlib.suppress(Exception):  # of a device that failed
                engine.destroy()


def _forget_left_groups() -> None:
    """Have DeepSpeed make new groups in a process that trained before, and has left the process group of then."""
    group = groups._WORLD_GROUP
    if group is not None and group not in dist.distributed_c10d._world.pg_map:
        groups._release_process_group_references()


def _for_deepspeed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The engine config, in which buffers get the precision that the model computes in unless it says another."""
    data_types = {**config.get("data_types", {}), "buffer_dtype": buffer_dtype(config)}
    return {**without_monitors(config), "data_types": data_types}


def _send_weights(engine: DeepSpeedEngine) -> None:
    """Give all ranks the master's weights, of whatever shape and layout, in place of DeepSpeed's way.

    That sends them as bytes, which a single number (such as a temperature that is learned) and a weight that is laid
    out in another order cannot be seen as.
    """
    for weight in engine.module.parameters():
        if not hasattr(weight, "ds_status") or weight.ds_status is ZeroParamStatus.AVAILABLE:
            from_master(weight.data)


def _import_muon() -> None:
    """Import an optimizer of DeepSpeed's, Muon, without having it compiled.

    No engine config here can name it, but `initialize` imports it to see what an optimizer is, and what it decorates
    with `torch.compile` loads inductor: 1.3 s of each start (deepspeed 0.19.8, torch 2.13.0).
    """
    before = os.environ.get("TORCHDYNAMO_DISABLE")
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    try:
        with contextlib.suppress(ImportError):  # another version keeps it elsewhere
            importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")
    finally:
        del os.environ["TORCHDYNAMO_DISABLE"]
        if before is not None:
            os.environ["TORCHDYNAMO_DISABLE"] = before


def _ask_torch_for_memory() -> None:
    """Keep DeepSpeed from asking NVML where GPUs are visible by other names than numbers, which it takes for such.

    NVML does not know which are visible; torch does, and is asked where NVML is not there (0.19.8).
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")
    if not all(name.strip().isdecimal() for name in visible):
        cuda_accelerator.pynvml = None


def _forget_first_step(engine: DeepSpeedEngine) -> None:
    """Undo the optimizer step that DeepSpeed takes at ZeRO stage 0 in 16 bits to allocate the optimizer's states.

    Its gradients are 0, but weight decay moves the masters, and Adam's count stays one ahead: the first update is then
    a quarter smaller, and stage 0 trains differently from stages 1 to 3.
    """
    if engine.zero_optimization() or not hasattr(engine.optimizer, "fp32_groups"):
        return
    for weights, masters in zip(engine.optimizer.fp16_groups, engine.optimizer.fp32_groups, strict=True):
        for weight, master in zip(weights, masters, strict=True):
            master.data.copy_(weight.data)
            step = engine.basic_optimizer.state[master].get("step")
            if step is not None:
                step.zero_()


def _forget_gradients_after_steps(optimizer: Any) -> None:
    """Have each step begin without gradients where DeepSpeed keeps them in memory of its own.

    At ZeRO-3, and where they are offloaded, it leaves there what it has of a weight until the weight has another one: a
    layer that is not used in a step gets its last gradient again, and what was NaN once stays so (0.19.8).
    """
    of_stage_1_and_2 = getattr(optimizer, "single_partition_of_fp32_groups", None)
    masters = getattr(optimizer, "fp32_partitioned_groups_flat", of_stage_1_and_2)
    if masters is None:
        return  # stage 0
    take_step = optimizer.step

    def step(*args: Any, **kwargs: Any) -> Any:
        result = take_step(*args, **kwargs)
        kept = [getattr(optimizer, "grad_partitions_flat_buffer", None), *(master.grad for master in masters)]
        for gradient in (*kept, *getattr(optimizer, "norm_for_param_grads", {}).values()):
            if gradient is not None:
                gradient.zero_()
        return result

    optimizer.step = step


def plain_module(engine: DeepSpeedEngine) -> nn.Module:
    """The model as the task built it."""
    module: nn.Module = engine.module
    return module.model if isinstance(module, ComputesInFloat32 | FlatModel) else module


def state_names(engine: DeepSpeedEngine) -> dict[str, str]:
    """The names in the plain module's state dict, in its order, and for each the name that its weight is trained by.

    They differ where weights are tied: such a weight is trained under the first of its names.
    """
    if isinstance(engine.module, FlatModel):
        return engine.module.state_names
    return names_of_state(plain_module(engine))


def learning_rate(engine: DeepSpeedEngine) -> float:
    """The learning rate of the last step."""
    return full_learning_rate(engine.basic_optimizer.param_groups)


def gradient_norm(engine: DeepSpeedEngine) -> Tensor | float | None:
    """The norm of the last step's gradient before clipping, over all ranks; None where DeepSpeed computes none.

    A tensor is returned as it is, since reading it would synchronise.
    """
    norm: Tensor | float | None = engine.get_global_grad_norm()
    return norm
