"""Every key that an engine config may hold, with its type: from DeepSpeed's own models, or ours for its raw dicts.

DeepSpeed ignores unknown keys in half of its blocks, drops "auto" in silence and converts strings to numbers
(seen in 0.19.8). The models here refuse all three, and take their names from the installed version.
"""

import copy
import functools
import operator
import types
import typing
from enum import Enum
from typing import Annotated, Any, Literal

from deepspeed.comm.config import CommsLoggerConfig
from deepspeed.monitor.config import CometConfig, CSVConfig, TensorBoardConfig, WandbConfig
from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from deepspeed.utils.config import DeepSpeedThroughputTimerConfig
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, create_model

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, populate_by_name=True, protected_namespaces=())


REFUSED = {
    "scheduler": "refused; it would overwrite the plateau's learning rate; remove it, and set --plateau_patience and "
    "--plateau_factor",
    "amp": "removed from DeepSpeed; use bf16, fp16 or torch_autocast",
    "elasticity": "removed from DeepSpeed; set train_micro_batch_size_per_gpu and gradient_accumulation_steps",
    "bfloat16": 'the old name of "bf16"; rename it',
    "checkpoint": "refused; the trainer writes resume points of its own; remove it",
    "activation_checkpointing": "refused; nothing here reads it: models call torch.utils.checkpoint; remove it",
    "compile": "refused; DeepSpeed compiles only steps that it decides on itself; remove it, or give --compile",
    "dump_state": "refused; DeepSpeed 0.19.8 ends with an AttributeError when it prints a model of one flat parameter; "
    "remove it",
    "data_types.param_dtype": "refused; it follows from bf16 and fp16; remove it",
    "gradient_allreduce_op": "refused; gradients are averaged over ranks; remove it",
    "zero_force_ds_cpu_optimizer": "refused; it has no effect on an optimizer that stands in this file; remove it",
    "dataloader_drop_last": "refused; the trainer builds its own loaders; remove it",
    "zero_optimization.zenflow": "refused; it decides itself when to step; remove it",
    "optimizer.params.max_grad_norm": 'not read from here; use "gradient_clipping" at the top level',
    **{
        name: "refused; this trainer has no such parallelism; remove it"
        for name in ("pipeline", "tensor_parallel", "expert_parallel", "sequence_parallel_size")
    },
}
"""Keys that DeepSpeed knows, or knew, and this trainer refuses, each with its remedy."""


def strict_model(model: type[BaseModel], path: str) -> type[BaseModel]:
    """The fields of a DeepSpeed model without its leniency: no "auto", no conversions, no deprecated names.

    Rebuilt rather than subclassed because DeepSpeed's constructor drops "auto" values before pydantic sees them, and
    swallows a key called "strict".

    Args:
        path: where the model stands in the engine config, as in `REFUSED`; deprecated names are added there.
    """
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("deprecated"):
            REFUSED[f"{path}.{name}"] = f"deprecated by DeepSpeed; use {extra['new_param']}"
        if f"{path}.{name}" not in REFUSED:
            field = copy.copy(field)
            field.annotation = _strict_type(field.annotation, f"{path}.{name}")
            fields[name] = (field.annotation, field)
    return create_model(model.__name__, __config__=_STRICT, **fields)


def _strict_type(annotation: Any, path: str) -> Any:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, (_strict_type(part, path) for part in typing.get_args(annotation)))
    if not isinstance(annotation, type):
        return annotation
    if issubclass(annotation, BaseModel):
        return strict_model(annotation, path)
    if issubclass(annotation, Enum):
        values = tuple(member.value for member in annotation)
        if issubclass(annotation, int):  # a Literal of numbers would take true for 1
            return Annotated[int, Field(ge=min(values), le=max(values))]
        return Literal.__getitem__(values)
    return annotation


_Decay = Annotated[float, Field(ge=0, lt=1)]


class _Block(BaseModel):
    model_config = _STRICT


class _OptimizerKeys(_Block):
    type: Literal["Adam", "AdamW", "SGD"] = Field(description='"AdamW", "Adam" or "SGD"')
    params: dict[str, Any] = Field(description='an object with at least the learning rate "lr"')


class _OptimizerParams(_Block):
    lr: PositiveFloat = Field(description="the base learning rate, such as 1e-3")
    weight_decay: NonNegativeFloat = 0.0
    fused: bool = False
    foreach: bool = False


class AdamParams(_OptimizerParams):
    """What `optimizer.params` may hold for Adam and AdamW."""

    betas: tuple[_Decay, _Decay] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    amsgrad: bool = False
    torch_adam: bool = True
    adam_w_mode: bool = True


class SgdParams(_OptimizerParams):
    """What `optimizer.params` may hold for SGD."""

    momentum: NonNegativeFloat = 0.0
    dampening: NonNegativeFloat = 0.0
    nesterov: bool = False


OPTIMIZER_PARAMS: dict[str, type[AdamParams] | type[SgdParams]] = {
    "Adam": AdamParams,
    "AdamW": AdamParams,
    "SGD": SgdParams,
}


class _TorchAutocastKeys(_Block):
    enabled: bool = False
    # Of float16, ZeRO clips the gradients while they are scaled (0.19.8): the clipped ones are as good as 0.
    dtype: Literal["bfloat16"] = "bfloat16"
    lower_precision_safe_modules: list[str] | None = None


class _DataTypesKeys(_Block):
    grad_accum_dtype: Literal["fp32", "fp16", "bf16"] | None = None
    buffer_dtype: Literal["fp32", "fp16", "bf16"] | None = None
    keep_in_fp32_modules: list[str] | None = None


class _FlopsProfilerKeys(_Block):
    enabled: bool = False
    recompute_fwd_factor: NonNegativeFloat = 0.0
    profile_step: PositiveInt = 1
    module_depth: int = -1
    top_modules: PositiveInt = 1
    detailed: bool = True
    output_file: str | None = None


class _AioKeys(_Block):
    block_size: PositiveInt = 1048576
    queue_depth: PositiveInt = 8
    intra_op_parallelism: PositiveInt = 1
    single_submit: bool = False
    overlap_events: bool = True
    use_gds: bool = False


class _OwnKeys(_Block):
    train_batch_size: PositiveInt | None = None
    train_micro_batch_size_per_gpu: PositiveInt | None = None
    gradient_accumulation_steps: PositiveInt | None = None
    managed_gradient_accumulation: bool = False
    gradient_clipping: NonNegativeFloat = 1.0
    prescale_gradients: bool = False
    gradient_predivide_factor: PositiveFloat = 1.0
    communication_data_type: Literal["fp32", "fp16", "bf16"] | None = None
    disable_allgather: bool = False
    zero_allow_untested_optimizer: bool = False
    steps_per_print: PositiveInt | None = None
    wall_clock_breakdown: bool = False
    memory_breakdown: bool = False
    log_level: Literal["debug", "info", "warning", "error", "critical"] | None = None
    optimizer: _OptimizerKeys | None = None
    torch_autocast: _TorchAutocastKeys = _TorchAutocastKeys()
    data_types: _DataTypesKeys = _DataTypesKeys()
    flops_profiler: _FlopsProfilerKeys = _FlopsProfilerKeys()
    aio: _AioKeys = _AioKeys()


_DEEPSPEED_BLOCKS: dict[str, type[BaseModel]] = {
    "zero_optimization": DeepSpeedZeroConfig,
    "bf16": DeepSpeedBF16Config,
    "fp16": DeepSpeedFP16Config,
    "comms_logger": CommsLoggerConfig,
    "tensorboard": TensorBoardConfig,
    "wandb": WandbConfig,
    "csv_monitor": CSVConfig,
    "comet": CometConfig,
}
_strict_blocks = {name: strict_model(model, name) for name, model in _DEEPSPEED_BLOCKS.items()}
_throughput = strict_model(DeepSpeedThroughputTimerConfig, "timers.throughput")
_timers = create_model("Timers", __config__=_STRICT, throughput=(_throughput, Field(default_factory=_throughput)))

EngineKeys: type[BaseModel] = create_model(
    "EngineKeys",
    __base__=_OwnKeys,
    timers=(_timers, Field(default_factory=_timers)),
    **{name: (block, Field(default_factory=block)) for name, block in _strict_blocks.items()},  # type: ignore[call-overload]
)
"""The whole engine config; what stands in `optimizer.params` depends on the type: see `OPTIMIZER_PARAMS`."""
