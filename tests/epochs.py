"""Epochs of a run without a model: what the loop tells a `Run` of them."""

import torch
from torch import nn

from ds_trainer.run.run_dir import Run
from ds_trainer.validation import Metrics


class PlainEngine:
    """What a run asks of an engine, answered by plain PyTorch."""

    def __init__(self, norm: float | torch.Tensor | None = 0.5):
        self.basic_optimizer = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.125)
        self.norm = norm

    def get_global_grad_norm(self) -> float | torch.Tensor | None:
        return self.norm


def metrics(loss: float, **named: float) -> Metrics:
    return Metrics(loss, named, torch.zeros(0), torch.zeros(0, 0))


def train(run: Run, losses: list[float], num_epochs: int, steps: int = 2, norm: float | None = 0.5) -> list[int]:
    """Epochs of so many steps, with the validation losses of `losses`, as far as they reach."""
    epochs = []
    engine = PlainEngine(norm)
    for epoch in run.remaining_epochs(num_epochs):
        if epoch >= len(losses):
            break
        epochs.append(epoch)
        for step in range(steps):
            run.after_step(engine, torch.tensor(10.0 * epoch + step))
        run.record_epoch(2.5, metrics(losses[epoch], top1=0.75))
    return epochs
