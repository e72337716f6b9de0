"""Hugging Face Accelerate: the plain loop, prepared by `Accelerator` in bf16."""

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch.nn import functional

from benchmarks.case import CLIPPING, LEARNING_RATE, Case
from benchmarks.contestants.peer import IS_GPU, Learning, loader_of, model_of, without_end
from benchmarks.pace import AfterStep


def train(case: Case, after_step: AfterStep) -> None:
    """Train until `after_step` raises."""
    accelerator = Accelerator(mixed_precision="bf16", cpu=not IS_GPU)
    model = model_of(case)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader_of(case))
    learning = Learning()
    for clips, signs in without_end(loader):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(clips), signs)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), CLIPPING)
        optimizer.step()
        learning.add(loss.item(), len(signs))
        after_step(learning.totals)
