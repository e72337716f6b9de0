"""Each mistake in an engine config is told in one clear line, and nothing else is refused."""

from typing import Any

import pytest
from engine_configs import REMOVED, changed

from ds_trainer.engine.config import check_engine_config

MISTAKES = {
    "typo at the top": ({"gradient_cliping": 1.0}, "gradient_cliping: unknown name; did you mean 'gradient_clipping'?"),
    "typo in bf16": ({"bf16.enable": True}, "bf16.enable: unknown name; did you mean 'enabled'?"),
    "typo in zero": ({"zero_optimization.stge": 1}, "zero_optimization.stge: unknown name; did you mean 'stage'?"),
    "typo in optimizer": ({"optimizer.param": {}}, "optimizer.param: unknown name; did you mean 'params'?"),
    "typo in params": ({"optimizer.params.weigth_decay": 0.1}, "did you mean 'weight_decay'?"),
    "typo in data_types": ({"data_types.grad_acum_dtype": "fp32"}, "did you mean 'grad_accum_dtype'?"),
    "typo in flops_profiler": ({"flops_profiler.enabld": True}, "did you mean 'enabled'?"),
    "typo three deep": ({"timers.throughput.enabld": True}, "timers.throughput.enabld: unknown name; did you mean"),
    "comment key": ({"_comment": "x"}, "_comment: unknown name"),
    "key that DeepSpeed's constructor takes": ({"zero_optimization.strict": True}, "zero_optimization.strict: unknown"),
    "no optimizer type": ({"optimizer.type": REMOVED}, 'optimizer.type: missing; expected "AdamW"'),
    "no optimizer": ({"optimizer": REMOVED}, 'optimizer: missing; expected such as {"type": "AdamW"'),
    "no learning rate": (
        {"optimizer.params.lr": REMOVED},
        "optimizer.params.lr: missing; expected the base learning rate",
    ),
    "unknown optimizer": ({"optimizer.type": "adamw"}, "found 'adamw'; input should be 'Adam', 'AdamW' or 'SGD'"),
    "text for a truth value": ({"bf16.enabled": "true"}, "bf16.enabled: found 'true'; input should be a valid boolean"),
    "truth value for a block": ({"bf16": True}, "bf16: found True; input should be an object"),
    "null for a block": ({"torch_autocast": None}, "torch_autocast: found None; input should be an object"),
    "text for a stage": ({"zero_optimization.stage": "1"}, "zero_optimization.stage: found '1'"),
    "truth value for a stage": ({"zero_optimization.stage": True}, "zero_optimization.stage: found True"),
    "stage 4": ({"zero_optimization.stage": 4}, "found 4; input should be less than or equal to 3"),
    "stage auto": ({"zero_optimization.stage": "auto"}, "zero_optimization.stage: found 'auto'"),
    "bucket as float": (
        {"zero_optimization.reduce_bucket_size": 2e7},
        "found 20000000.0; input should be a valid integer",
    ),
    "text for clipping": (
        {"gradient_clipping": "1.0"},
        "gradient_clipping: found '1.0'; input should be a valid number",
    ),
    "negative clipping": ({"gradient_clipping": -1}, "gradient_clipping: found -1; input should be greater than or"),
    "clipping auto": ({"gradient_clipping": "auto"}, "gradient_clipping: found 'auto'"),
    "truth value for clipping": ({"gradient_clipping": True}, "gradient_clipping: found True"),
    "infinite clipping": (
        {"gradient_clipping": float("inf")},
        "gradient_clipping: found inf; input should be a finite",
    ),
    "text for lr": (
        {"optimizer.params.lr": "1e-3"},
        "optimizer.params.lr: found '1e-3'; input should be a valid number",
    ),
    "lr auto": ({"optimizer.params.lr": "auto"}, "optimizer.params.lr: found 'auto'"),
    "negative lr": ({"optimizer.params.lr": -1}, "optimizer.params.lr: found -1; input should be greater than 0"),
    "lr 0": ({"optimizer.params.lr": 0}, "optimizer.params.lr: found 0; input should be greater than 0"),
    "beta of 1": ({"optimizer.params.betas": [0.9, 1.0]}, "betas.1: found 1.0; input should be less than 1"),
    "no batch sizes": (
        {"train_micro_batch_size_per_gpu": REMOVED},
        "train_micro_batch_size_per_gpu: missing; expected",
    ),
    "micro auto": ({"train_micro_batch_size_per_gpu": "auto"}, "found 'auto'; input should be a valid integer"),
    "text for micro": ({"train_micro_batch_size_per_gpu": "16"}, "found '16'; input should be a valid integer"),
    "float for micro": ({"train_micro_batch_size_per_gpu": 16.0}, "found 16.0; input should be a valid integer"),
    "micro 0": ({"train_micro_batch_size_per_gpu": 0}, "found 0; input should be greater than 0"),
    "negative accumulation": ({"gradient_accumulation_steps": -1}, "found -1; input should be greater than 0"),
    "bf16 and fp16": ({"fp16.enabled": True}, "bf16 and fp16: both enabled, which is two precisions; keep one"),
    "bf16 and autocast": ({"torch_autocast.enabled": True}, "bf16 and torch_autocast: both enabled"),
    "fp16 on a CPU": ({"bf16": {}, "fp16.enabled": True}, "fp16.enabled: found true; DeepSpeed refuses fp16 on a CPU"),
    "float16 autocast": (
        {"torch_autocast.dtype": "float16"},
        "torch_autocast.dtype: found 'float16'; input should be 'bfloat16'",
    ),
    "unscaled fp16": (
        {"bf16": {}, "fp16.enabled": True, "zero_optimization.stage": 0},
        "fp16.enabled: found true at ZeRO stage 0, where DeepSpeed divides",
    ),
    "NaN for all": (
        {"bf16": {}, "zero_optimization.stage": 0, "optimizer.params.fused": False},
        "optimizer.params: found an optimizer that is not fused, with ZeRO stage 0 in float32",
    ),
    "negative loss scale": (
        {"fp16.loss_scale": -1.0},
        "refused by DeepSpeed: Value error, fp16.loss_scale must be >= 0",
    ),
    "scheduler": ({"scheduler.type": "WarmupLR"}, "scheduler: refused; it would overwrite the plateau's learning rate"),
    "max_grad_norm": (
        {"optimizer.params.max_grad_norm": 1.0},
        'optimizer.params.max_grad_norm: not read from here; use "gr',
    ),
    "elasticity": ({"elasticity": {}}, "elasticity: removed from DeepSpeed"),
    "amp": ({"amp.enabled": True}, "amp: removed from DeepSpeed"),
    "deprecated offload": (
        {"zero_optimization.cpu_offload": True},
        "cpu_offload: deprecated by DeepSpeed; use offload_opt",
    ),
    "data type": ({"data_types.grad_accum_dtype": "fp31"}, "found 'fp31'; input should be 'fp32', 'fp16' or 'bf16'"),
    "communication type": ({"communication_data_type": "fp8"}, "communication_data_type: found 'fp8'; input should be"),
    "steps_per_print 0": ({"steps_per_print": 0}, "steps_per_print: found 0; input should be greater than 0"),
    "managed accumulation": ({"managed_gradient_accumulation": True}, "the trainer itself decides when to step"),
    "no overflow check": (
        {"bf16.check_grad_overflow": False, "optimizer.params.fused": False},
        "bf16.check_grad_overflow: found false; with an optimizer that is not fused",
    ),
    "checkpoints of DeepSpeed": ({"checkpoint.tag_validation": "Fail"}, "checkpoint: refused; the trainer writes"),
    "activation checkpointing": (
        {"activation_checkpointing.cpu_checkpointing": True},
        "activation_checkpointing: refused; nothing here reads it",
    ),
    "DeepSpeed's compiler": ({"compile.debug_log": True}, "compile: refused; DeepSpeed compiles only steps that it"),
    "state printed": ({"dump_state": True}, "dump_state: refused; DeepSpeed 0.19.8 ends with an AttributeError"),
    "prescaled gradients": (
        {"zero_optimization.stage": 2, "prescale_gradients": True},
        "prescale_gradients: found True; at ZeRO stage 2 DeepSpeed takes it only without reduce_scatter",
    ),
    "predivided gradients": (
        {"zero_optimization.stage": 3, "gradient_predivide_factor": 2.0},
        "gradient_predivide_factor: found 2.0; at ZeRO stage 3 DeepSpeed takes it only without reduce_scatter",
    ),
    "overlap at stage 1": (
        {"zero_optimization.overlap_comm": True},
        "overlap_comm: found true at stage 1; it needs stage 2",
    ),
    "no gradient norm": ({"zero_optimization.compute_grad_norm": False}, "compute_grad_norm: found false; clipping"),
    "offload at stage 0": (
        {"zero_optimization": {"stage": 0, "offload_optimizer": {"device": "cpu"}}},
        "zero_optimization.offload_optimizer: ignored at stage 0",
    ),
    "parameters offloaded at stage 1": (
        {"zero_optimization.offload_param.device": "cpu"},
        "offload_param: ignored at stage",
    ),
    "partial offload at stage 1": (
        {"zero_optimization.offload_optimizer": {"device": "cpu", "ratio": 0.5}},
        "refused by DeepSpeed: Assertion failed, Partial offloading only supported for ZeRO Stage 3",
    ),
    "states on NVMe at stage 2": (
        {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "nvme", "nvme_path": "/tmp"}}},
        "offload_optimizer.device: found 'nvme' at stage 2, where DeepSpeed keeps the states in the host's memory",
    ),
    "NVMe key without NVMe": (
        {"zero_optimization.offload_optimizer": {"device": "cpu", "pipeline_read": True}},
        'zero_optimization.offload_optimizer.pipeline_read: ignored unless the device is "nvme"; remove it',
    ),
    "aio without NVMe": ({"aio.queue_depth": 4}, 'aio: ignored where nothing is offloaded to "nvme"; remove it'),
    "old stage 1": ({"zero_optimization.legacy_stage1": True}, "legacy_stage1: refused; removed from DeepSpeed"),
    "elastic checkpoint": (
        {"zero_optimization.elastic_checkpoint": True},
        "zero_optimization.elastic_checkpoint: refused; the trainer writes resume points of its own; remove it",
    ),
    "weights of a checkpoint": (
        {"zero_optimization.load_from_fp32_weights": False},
        "zero_optimization.load_from_fp32_weights: refused; the trainer writes",
    ),
    "gathered weights": (
        {"zero_optimization.stage": 3, "zero_optimization.gather_16bit_weights_on_model_save": True},
        "zero_optimization.stage3_gather_16bit_weights_on_model_save: refused; the trainer writes",
    ),
    "no allgather": ({"disable_allgather": True}, "disable_allgather: refused; DeepSpeed reads it no more"),
    "quantized weights at stage 1": (
        {"zero_optimization.zero_quantized_weights": True},
        "zero_optimization.zero_quantized_weights: ignored at stage 1; use stage 3, or remove it",
    ),
    "quantized weights on a CPU": (
        {"zero_optimization.stage": 3, "zero_optimization.zero_quantized_weights": True},
        "zero_optimization.zero_quantized_weights: found true; DeepSpeed quantizes on GPUs alone; remove it on a CPU",
    ),
    "prefetching at stage 2": (
        {"zero_optimization.stage": 2, "zero_optimization.stage3_prefetch_bucket_size": 1000},
        "zero_optimization.stage3_prefetch_bucket_size: ignored at stage 2; use stage 3, or remove it",
    ),
    "super offload at stage 2": (
        {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu", "super_offload": True}}},
        "zero_optimization.offload_optimizer.super_offload: ignored at stage 2; use stage 3",
    ),
    "alignment at stage 3": (
        {"zero_optimization.stage": 3, "zero_optimization.parameter_alignment": True},
        "zero_optimization.parameter_alignment: ignored at stage 3; use stage 1 or 2, or remove it",
    ),
    "buffers kept in float32 in float32": (
        {"bf16": {}, "data_types.keep_in_fp32_modules": ["table"]},
        "data_types.keep_in_fp32_modules: ignored without bf16 or fp16; remove it",
    ),
    "no NVMe path": ({"zero_optimization.offload_optimizer.device": "nvme"}, "offload_optimizer.nvme_path: missing"),
    "float32 sums at stage 0": (
        {"zero_optimization.stage": 0, "data_types.grad_accum_dtype": "fp32"},
        "data_types.grad_accum_dtype: found 'fp32'; ZeRO stage 0 accumulates in 'bf16', the type of the weights; "
        "remove it, or use stage 2",
    ),
    "float32 sums at stage 1": (
        {"data_types.grad_accum_dtype": "fp32"},
        "data_types.grad_accum_dtype: found 'fp32' with bf16 at ZeRO stage 1",
    ),
    "SGD with ZeRO": (
        {"optimizer": {"type": "SGD", "params": {"lr": 0.1}}},
        'write "zero_allow_untested_optimizer": true',
    ),
    "Nesterov without momentum": (
        {"optimizer": {"type": "SGD", "params": {"lr": 0.1, "nesterov": True}}},
        "optimizer.params.nesterov: found true; it needs a momentum above 0, and no dampening; write",
    ),
    "Nesterov with dampening": (
        {"optimizer": {"type": "SGD", "params": {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "nesterov": True}}},
        "optimizer.params.nesterov: found true; it needs a momentum above 0, and no dampening; write",
    ),
    "dampening without momentum": (
        {"optimizer": {"type": "SGD", "params": {"lr": 0.1, "dampening": 0.1}}},
        "optimizer.params.dampening: found 0.1; without momentum it does nothing; remove it",
    ),
    "Adam that is AdamW": ({"optimizer.type": "Adam"}, "optimizer.params.adam_w_mode: missing; DeepSpeed takes"),
    "AdamW that is not": ({"optimizer.params.adam_w_mode": False}, 'found false beside "AdamW", which ignores it'),
    "fused and foreach": ({"optimizer.params.foreach": True}, "optimizer.params.fused and foreach: both true"),
    "fused without torch": (
        {"optimizer.params.torch_adam": False},
        "optimizer.params.fused: not taken by DeepSpeed's own",
    ),
}


@pytest.mark.parametrize(("changes", "expected"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistake_is_told(changes: dict[str, Any], expected: str) -> None:
    problems = check_engine_config(changed(changes), world_size=1, device_type="cpu", source="my.json")
    assert any(expected in problem for problem in problems), problems
    assert all(problem.startswith("my.json: ") and "\n" not in problem for problem in problems)


@pytest.mark.parametrize(
    "changes",
    [
        {"zero_optimization.stage": 2, "data_types.grad_accum_dtype": "fp32"},
        {"zero_optimization.offload_optimizer.device": "cpu", "data_types.grad_accum_dtype": "fp32"},
        {"bf16": {}, "data_types.grad_accum_dtype": "fp32"},
        {"zero_optimization.zero_quantized_weights": False},
        {"zero_optimization.allgather_partitions": True, "zero_optimization.offload_optimizer": {"device": "none"}},
        {
            "zero_optimization": {"stage": 3, "offload_param": {"device": "nvme", "nvme_path": "/tmp"}},
            "aio": {"queue_depth": 4},
        },
    ],
    ids=str,
)
def test_what_trains_is_not_refused(changes: dict[str, Any]) -> None:
    assert check_engine_config(changed(changes), world_size=1, device_type="cpu") == []
