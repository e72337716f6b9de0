"""Keys of an engine config that DeepSpeed takes and that would do nothing here, or nothing at a ZeRO stage (0.19.8)."""

import functools
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

_OWN_POINTS = "the trainer writes resume points of its own"
_NEVER = {
    "disable_allgather": "DeepSpeed reads it no more",
    "bf16.immediate_grad_update": "it belongs to an optimizer that is refused here",
    "fp16.auto_cast": "the trainer casts inputs itself",
    "zero_optimization.allgather_partitions": "DeepSpeed reads it no more",
    "zero_optimization.legacy_stage1": "removed from DeepSpeed",
    "zero_optimization.elastic_checkpoint": _OWN_POINTS,
    "zero_optimization.load_from_fp32_weights": _OWN_POINTS,
    "zero_optimization.gather_16bit_weights_on_model_save": _OWN_POINTS,
    "zero_optimization.pipeline_loading_checkpoint": _OWN_POINTS,
    "zero_optimization.override_module_apply": "models are built outside of zero.Init",
    "zero_optimization.save_muon_momentum_buffer_in_memory": "there is no Muon here",
}
_AT_STAGES = {
    "1, 2 or 3": ("contiguous_gradients", "reduce_scatter", "offload_optimizer"),
    "1 or 2": (
        "use_multi_rank_bucket_allreduce",
        "ignore_unused_parameters",
        "round_robin_gradients",
        "parameter_alignment",
    ),
    "3": (
        "offload_param",
        "offload_optimizer.super_offload",
        "offload_optimizer.cpuadam_cores_perc",
        "sub_group_size",
        "prefetch_bucket_size",
        "param_persistence_threshold",
        "model_persistence_threshold",
        "max_live_parameters",
        "max_reuse_distance",
        "module_granularity_threshold",
        "use_all_reduce_for_fetch_params",
        "allgather_sequential",
        "zero_hpz_partition_size",
        "zero_quantized_weights",
        "zero_quantized_nontrainable_weights",
        "zero_quantized_gradients",
        "memory_efficient_linear",
        "log_trace_cache_warnings",
        "enable_sanity_checks",
        "leaf_module",
    ),
}
_OF_NVME = ("nvme_path", "buffer_count", "buffer_size", "max_in_cpu", "pipeline_read", "pipeline_write", "fast_init")
READ = {"disable_allgather", "bf16", "fp16", "torch_autocast", "zero_optimization", "data_types", "aio"}
"""The top-level keys that are looked at."""


def idle_problems(keys: Any, place: object) -> Iterator[str]:
    """Keys whose value is not the default, and that change nothing."""
    for path, reason in _NEVER.items():
        for name in _written(keys, path):
            yield f"{name}: refused; {reason}; remove it"
    stage = keys.zero_optimization.stage
    for stages, paths in _AT_STAGES.items():
        if str(stage) not in stages:
            for path in paths:
                for name in _written(keys, f"zero_optimization.{path}"):
                    yield f"{name}: ignored at stage {stage}; use stage {stages}, or remove it"
    yield from _idle_without_nvme(keys)
    if keys.data_types.keep_in_fp32_modules and not (keys.bf16.enabled or keys.fp16.enabled):
        yield "data_types.keep_in_fp32_modules: ignored without bf16 or fp16; remove it"


def _idle_without_nvme(keys: Any) -> Iterator[str]:
    zero = keys.zero_optimization
    blocks = {name: getattr(zero, name) for name in ("offload_optimizer", "offload_param")}
    on_nvme = [name for name, block in blocks.items() if block is not None and block.device == "nvme"]
    if "offload_optimizer" in on_nvme and zero.stage in (1, 2):
        yield (
            f"zero_optimization.offload_optimizer.device: found 'nvme' at stage {zero.stage}, where DeepSpeed keeps "
            'the states in the host\'s memory all the same; write "cpu", or use stage 3'
        )
    for block in (name for name in blocks if name not in on_nvme):
        for key in _OF_NVME:
            for name in _written(keys, f"zero_optimization.{block}.{key}"):
                yield f'{name}: ignored unless the device is "nvme"; remove it'
    if not on_nvme and "aio" in keys.model_fields_set:
        yield 'aio: ignored where nothing is offloaded to "nvme"; remove it'


def _written(keys: Any, path: str) -> Iterator[str]:
    """The documented name of a key, if it stands in the config with another value than its default."""
    *parents, name = path.split(".")
    block: BaseModel | None = functools.reduce(lambda block, parent: block and getattr(block, parent), parents, keys)
    field = None if block is None else type(block).model_fields.get(name)
    if field is not None and getattr(block, name) != field.get_default(call_default_factory=True):
        yield ".".join([*parents, field.alias or name])
