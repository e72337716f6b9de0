"""DeepSpeed as in its tutorial: bf16, ZeRO-1, what the config leaves out as DeepSpeed has it.

Two keys save compilations, which would be another contest: torch's AdamW in place of DeepSpeed's own, and no
shared-memory collective, which serves inference on CPUs.
"""

import os

import torch
from torch.nn import functional

from benchmarks.case import CLIPPING, LEARNING_RATE, Case
from benchmarks.contestants.peer import IS_GPU, WORLD_SIZE, Learning, loader_of, model_of, without_end
from benchmarks.pace import AfterStep

if not IS_GPU:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
import deepspeed

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def train(case: Case, after_step: AfterStep) -> None:
    """Train until `after_step` raises."""
    if WORLD_SIZE == 1:
        for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
            os.environ.setdefault(name, value)
    config = {
        "train_micro_batch_size_per_gpu": case.micro_batch,
        "gradient_clipping": CLIPPING,
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": 1},
        "optimizer": {"type": "AdamW", "params": {"lr": LEARNING_RATE, "torch_adam": True}},
    }
    model = model_of(case)
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
    learning = Learning()
    try:
        for clips, signs in without_end(loader_of(case, WORLD_SIZE, int(os.environ["RANK"]))):
            loss = functional.cross_entropy(engine(clips.bfloat16()).float(), signs)
            engine.backward(loss)
            engine.step()
            learning.add(loss.item(), len(signs))
            after_step(learning.totals)
    finally:
        torch.distributed.destroy_process_group()
