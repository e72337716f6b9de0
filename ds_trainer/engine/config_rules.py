"""What DeepSpeed would ignore, misread or refuse late in an engine config whose keys and types are right.

Each rule says what stands in the file, why it cannot be, and what to write; DeepSpeed's behaviour is that of 0.19.8.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deepspeed.comm import comm
from deepspeed.runtime.config import DeepSpeedConfig
from pydantic import ValidationError
from torch import distributed as dist

from ds_trainer.engine.config_keys import AdamParams, SgdParams
from ds_trainer.engine.idle_keys import READ, idle_problems
from ds_trainer.engine.monitors import MONITORS, monitor_problems
from ds_trainer.engine.skipping import skips_on_device
from ds_trainer.problems import reason_of


@dataclass(frozen=True)
class Place:
    """Where an engine config is going to run.

    Args:
        device_type: as in `torch.device.type`.
    """

    world_size: int
    device_type: str


def batch_problems(keys: Any, place: Place) -> Iterator[str]:
    """Batch sizes that are missing, or whose product is not theirs at this world size."""
    train, micro = keys.train_batch_size, keys.train_micro_batch_size_per_gpu
    accumulation = keys.gradient_accumulation_steps
    ranks = f"{place.world_size} rank{'s' if place.world_size > 1 else ''}"
    if train is None and micro is None:
        yield "train_micro_batch_size_per_gpu: missing; expected how many clips one rank passes at once, such as 32"
    elif train is not None and micro is not None and accumulation is not None:
        product = micro * accumulation * place.world_size
        if train != product:
            yield (
                f"train_batch_size: found {train}; {micro} (train_micro_batch_size_per_gpu) x {accumulation} "
                f"(gradient_accumulation_steps) on {ranks} is {product}; write {product}, or remove it"
            )
    elif train is not None and micro is None and accumulation is None:
        yield (
            f"train_batch_size: found {train} alone; write train_micro_batch_size_per_gpu beside it, "
            f"such as {max(train // place.world_size, 1)} on {ranks} without accumulation"
        )
    elif train is not None:
        given = "gradient_accumulation_steps" if micro is None else "train_micro_batch_size_per_gpu"
        unit = (accumulation or micro) * place.world_size
        if train % unit:
            below, above = train // unit * unit, math.ceil(train / unit) * unit
            remedy = f"write {below} or {above}" if below else f"write {above}"
            yield f"train_batch_size: found {train}; expected a multiple of {unit} ({given} on {ranks}); {remedy}"


def precision_problems(keys: Any, place: Place) -> Iterator[str]:
    """More than one precision, or one that cannot train here."""
    blocks = {"bf16": keys.bf16, "fp16": keys.fp16, "torch_autocast": keys.torch_autocast}
    enabled = [name for name, block in blocks.items() if block.enabled]
    if len(enabled) > 1:
        yield f"{' and '.join(enabled)}: both enabled, which is two precisions; keep one and remove the other"
    if keys.fp16.enabled and place.device_type == "cpu":
        yield "fp16.enabled: found true; DeepSpeed refuses fp16 on a CPU; use bf16 or torch_autocast there"
    if keys.bf16.enabled and not keys.bf16.check_grad_overflow and not _skips_on_device(keys):
        yield (
            "bf16.check_grad_overflow: found false; with an optimizer that is not fused, or is offloaded, one "
            "non-finite gradient would then poison all weights; remove it"
        )
    if keys.zero_optimization.stage == 0:
        yield from _problems_at_stage_0(keys, enabled)


def _problems_at_stage_0(keys: Any, enabled: list[str]) -> Iterator[str]:
    if keys.fp16.enabled:
        yield (
            "fp16.enabled: found true at ZeRO stage 0, where DeepSpeed divides gradients by a loss scale that the loss "
            "was not multiplied by (0.19.8); use stage 1"
        )
    if not {"bf16", "fp16"} & {*enabled} and not _skips_on_device(keys):
        yield (
            "optimizer.params: found an optimizer that is not fused, with ZeRO stage 0 in float32, where one "
            'non-finite gradient would poison all weights; write "fused": true, or use stage 1'
        )


def accumulation_problems(keys: Any, place: Place) -> Iterator[str]:
    """A type of the sums of gradients that the ZeRO stage does not know, or cannot be saved with."""
    found, zero = keys.data_types.grad_accum_dtype, keys.zero_optimization
    own = next((name for name in ("bf16", "fp16") if getattr(keys, name).enabled), "fp32")
    if zero.stage == 0 and found not in (None, own):
        yield (
            f"data_types.grad_accum_dtype: found {found!r}; ZeRO stage 0 accumulates in {own!r}, the type of the "
            "weights; remove it, or use stage 2"
        )
    is_offloaded = zero.offload_optimizer is not None and zero.offload_optimizer.device != "none"
    if zero.stage == 1 and found == "fp32" and own == "bf16" and not is_offloaded:
        yield (
            "data_types.grad_accum_dtype: found 'fp32' with bf16 at ZeRO stage 1, where DeepSpeed has an optimizer of "
            "its own for it, which resume points do not know; use stage 2, or remove it"
        )


def _skips_on_device(keys: Any) -> bool:
    if keys.optimizer is None:
        return True  # which is a problem of its own
    return skips_on_device(keys.optimizer.model_dump(), keys.zero_optimization.model_dump())


def optimizer_problems(keys: Any, place: Place) -> Iterator[str]:
    """No optimizer, or one that DeepSpeed refuses with ZeRO."""
    if keys.optimizer is None:
        yield 'optimizer: missing; expected such as {"type": "AdamW", "params": {"lr": 1e-3}}'
    elif keys.optimizer.type == "SGD" and keys.zero_optimization.stage > 0 and not keys.zero_allow_untested_optimizer:
        yield (
            "optimizer.type: found 'SGD'; with ZeRO DeepSpeed takes only Adam and AdamW unasked; "
            'write "zero_allow_untested_optimizer": true'
        )


def adam_problems(optimizer_type: str, params: AdamParams) -> Iterator[str]:
    """Weight decay that is not the kind that it seems, and keys that DeepSpeed's own Adam does not take."""
    if optimizer_type == "AdamW" and not params.adam_w_mode:
        yield 'optimizer.params.adam_w_mode: found false beside "AdamW", which ignores it; write "Adam", or remove it'
    # Without weight decay the two are one.
    is_decayed = params.weight_decay > 0 or "weight_decay" not in params.model_fields_set
    if optimizer_type == "Adam" and "adam_w_mode" not in params.model_fields_set and is_decayed:
        yield (
            'optimizer.params.adam_w_mode: missing; DeepSpeed takes "Adam" as AdamW; write "type": "AdamW" for '
            'decoupled weight decay, or "adam_w_mode": false for an L2 penalty'
        )
    if not params.torch_adam:
        for name in sorted(params.model_fields_set & {"fused", "foreach", "amsgrad"}):
            yield f'optimizer.params.{name}: not taken by DeepSpeed\'s own Adam; remove it, or write "torch_adam": true'


def sgd_problems(params: SgdParams) -> Iterator[str]:
    """What is nothing without momentum."""
    if params.nesterov and (params.momentum == 0 or params.dampening > 0):
        yield (
            "optimizer.params.nesterov: found true; it needs a momentum above 0, and no dampening; write "
            '"momentum": 0.9 and no dampening, or remove it'
        )
    elif params.dampening > 0 and params.momentum == 0:
        yield f"optimizer.params.dampening: found {params.dampening}; without momentum it does nothing; remove it"


def step_problems(keys: Any, place: Place) -> Iterator[str]:
    """A key with which DeepSpeed, and not the trainer, decides when to step."""
    if keys.managed_gradient_accumulation:
        yield "managed_gradient_accumulation: found true; the trainer itself decides when to step; remove it"


def zero_problems(keys: Any, place: Place) -> Iterator[str]:
    """ZeRO keys that the stage refuses, or that lack another."""
    zero = keys.zero_optimization
    if zero.overlap_comm and zero.stage < 2:
        yield (
            f"zero_optimization.overlap_comm: found true at stage {zero.stage}; it needs stage 2 or 3 where the "
            "trainer decides when to step; remove it"
        )
    if not zero.compute_grad_norm:
        yield "zero_optimization.compute_grad_norm: found false; clipping and the run's record need the norm; remove it"
    for name in ("zero_quantized_weights", "zero_quantized_nontrainable_weights"):
        if getattr(zero, name) and zero.stage == 3 and place.device_type == "cpu":
            yield f"zero_optimization.{name}: found true; DeepSpeed quantizes on GPUs alone; remove it on a CPU"
    for name in ("offload_optimizer", "offload_param"):
        block = getattr(zero, name)
        if block is not None and block.device == "nvme" and block.nvme_path is None:
            yield f"zero_optimization.{name}.nvme_path: missing; expected a folder on the NVMe device"


def scaling_problems(keys: Any, place: Place) -> Iterator[str]:
    """Gradients that are scaled before they are added up, which an assertion of ZeRO 2 and 3 refuses."""
    zero = keys.zero_optimization
    if zero.stage >= 2 and zero.reduce_scatter:
        for name, neutral in _SCALING.items():
            if getattr(keys, name) != neutral:
                yield (
                    f"{name}: found {getattr(keys, name)}; at ZeRO stage {zero.stage} DeepSpeed takes it only without "
                    f"reduce_scatter; remove it"
                )


_SCALING = {"prescale_gradients": False, "gradient_predivide_factor": 1.0}
_BATCH = {"train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"}
RULES = (
    (batch_problems, _BATCH),
    (precision_problems, {"bf16", "fp16", "torch_autocast", "zero_optimization", "optimizer"}),
    (accumulation_problems, {"bf16", "fp16", "zero_optimization", "data_types"}),
    (optimizer_problems, {"optimizer", "zero_optimization", "zero_allow_untested_optimizer"}),
    (step_problems, {"managed_gradient_accumulation"}),
    (zero_problems, {"zero_optimization"}),
    (idle_problems, READ),
    (scaling_problems, {"zero_optimization", *_SCALING}),
    (monitor_problems, set(MONITORS)),
)
"""Each rule with the top-level keys that it reads: a rule is silent while one of them has the wrong type."""


def last_word(config: Mapping[str, Any]) -> list[str]:
    """What DeepSpeed's own reading of `config` refuses: the rules of the installed version that are not told above."""
    if not dist.is_initialized():
        comm.cdb = None  # of a training before in this process: under python -O it would be asked for its rank
    try:
        # Without the product, since the world size that DeepSpeed sees here may not be that of the run.
        DeepSpeedConfig({key: value for key, value in config.items() if key != "train_batch_size"})
    except ValidationError as error:
        return [f"refused by DeepSpeed: {details['msg']}" for details in error.errors()]
    except Exception as error:  # its constructors fail in many ways, each with a type of its own
        return [f"refused by DeepSpeed: {reason_of(error)}"]
    return []
