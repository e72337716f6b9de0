"""A plain PyTorch loop, as in the tutorials: autocast, gradient clipping, AdamW, `loss.item()` in each step."""

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from benchmarks.case import CLIPPING, LEARNING_RATE, Case
from benchmarks.contestants.peer import DEVICE, IS_GPU, WORLD_SIZE, Learning, loader_of, model_of, without_end
from benchmarks.pace import AfterStep, nothing_learned


def train(case: Case, after_step: AfterStep, is_bf16: bool = True, fused: bool | None = None) -> None:
    """Train until `after_step` raises."""
    model: nn.Module = model_of(case)
    rank = 0
    if WORLD_SIZE > 1:
        rank = int(os.environ["RANK"])
        dist.init_process_group("nccl" if IS_GPU else "gloo")
        model = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=fused)
    learning = Learning()
    try:
        for clips, signs in without_end(loader_of(case, WORLD_SIZE, rank)):
            optimizer.zero_grad()
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=is_bf16):
                loss = functional.cross_entropy(model(clips), signs)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIPPING)
            optimizer.step()
            learning.add(loss.item(), len(signs))
            after_step(learning.totals)
    finally:
        if WORLD_SIZE > 1:
            dist.destroy_process_group()


def train_fp32(case: Case, after_step: AfterStep) -> None:
    """The same in float32: faster than autocast on a CPU without bf16 instructions."""
    train(case, after_step, is_bf16=False)


def train_fused(case: Case, after_step: AfterStep) -> None:
    """The same with fused AdamW: on a CPU the default one reads each parameter's count of steps."""
    train(case, after_step, fused=True)


def prepare(case: Case, after_step: AfterStep) -> None:
    """Only the data path."""
    for _ in without_end(loader_of(case)):
        after_step(nothing_learned)
