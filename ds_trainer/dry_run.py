"""What a job is about to do, in a few lines: shown at each start, and all that `--dry_run` is for."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ds_trainer.batches import BatchLoader, ShardedSampler, size_of
from ds_trainer.distributed import device, world_size
from ds_trainer.engine.plan import memory_estimate
from ds_trainer.engine.precision import computes_in_float32, has_fast_bf16
from ds_trainer.loop import micro_step
from ds_trainer.objective import Objective
from ds_trainer.progress import log
from ds_trainer.rehearsal import refuse_unsavable
from ds_trainer.task import Task
from ds_trainer.weight_average import averaged_weights

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

_MIB = 2**20
_16_BIT_BLOCKS = ("bf16", "fp16", "torch_autocast")


def describe_job(
    task: Task, sampler: ShardedSampler, engine_config: Mapping[str, Any], num_parameters: int
) -> list[str]:
    """Lines for the log: data, model, engine, and how many steps an epoch takes."""
    sizes = {"train": task.train_set, "val": task.val_set, "test": task.test_set}
    splits = ", ".join(f"{size_of(dataset)} {split}" for split, dataset in sizes.items() if dataset is not None)
    passes = sampler.num_examples // max(1, size_of(task.train_set))
    ranks = f"{world_size()} {'rank' if world_size() == 1 else 'ranks'}"
    stage = engine_config["zero_optimization"]["stage"]
    return [
        f"{task.label()}: {num_parameters:,} parameters; clips: {splits}",
        *(f"note: {notice}" for notice in task.notices),
        f"{ranks} on {device().type}, {precision(engine_config)}, ZeRO stage {stage}; "
        f"{sampler.steps_per_epoch} steps an epoch of {sampler.step_size} clips "
        f"(micro-batch {sampler.micro_batch} x accumulation {sampler.accumulation} x ranks {sampler.world_size})"
        + (f"; the training clips {passes} times in it" if passes > 1 else ""),
    ]


def precision(engine_config: Mapping[str, Any]) -> str:
    """The precision of an engine config in words."""
    if computes_in_float32(engine_config):
        return "bf16 weights (arithmetic in float32: this CPU has no bf16 instructions)"
    name = next((block for block in _16_BIT_BLOCKS if engine_config.get(block, {}).get("enabled")), "fp32")
    if name == "fp32" or has_fast_bf16():
        return name
    if device().type == "cpu":
        return f"{name} (slow: this CPU has no bf16 instructions; fp32.json is many times faster here)"
    return "bf16 (slow: this GPU has no bf16 arithmetic; fp16.json is for such)" if name == "bf16" else name


def describe_plan(settings: Mapping[str, Any], engine_config: Mapping[str, Any], num_parameters: int) -> list[str]:
    """The resolved settings, and the memory that each ZeRO stage would take on each rank, activations not included."""
    lines = ["resolved run settings:"]
    lines += [f"  {name}: {value}" for name, value in settings.items()]
    lines += ["resolved engine config:", *(f"  {line}" for line in json.dumps(engine_config, indent=1).splitlines())]
    lines += [
        "memory a rank for the model's state (MiB; activations, communication buffers and, at stages 1 and 2, a step's "
        "gradients in float32 come on top; at stage 3 each rank has the whole model while it starts):"
    ]
    lines += ["  stage   weights  gradients  optimizer      total  of it on the host"]
    for memory in memory_estimate(num_parameters, world_size(), engine_config):
        parts = (memory.weights, memory.gradients, memory.optimizer, memory.total, memory.host)
        marker = " <- this config" if memory.stage == engine_config["zero_optimization"]["stage"] else ""
        lines.append(f"  {memory.stage:>5}" + "".join(f"{part / _MIB:>11.1f}" for part in parts) + marker)
    return lines


def take_one_step(engine: "DeepSpeedEngine", objective: Objective, batches: BatchLoader) -> None:
    """Train on the first step's batches, tell its loss, and read what would be saved after it. Collective."""
    engine.train()
    loss = torch.zeros((), device=engine.device)
    for batch in batches:
        loss += micro_step(engine, objective, batch) * batch.share
        if batch.ends_step:
            break
    engine.step()
    with averaged_weights(engine):
        refuse_unsavable(engine)
    log.info(f"one step taken: loss {loss.item():.4f}; dry run ends here")
