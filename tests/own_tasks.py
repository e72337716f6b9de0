"""Small tasks as users write them, each with something of its own: `--task own_tasks:Drawn`."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset, random_split

from ds_trainer.objective import Objective
from ds_trainer.task import Task


class Drawn(Task):
    """Its split is drawn as torch's tutorials do it, without a generator; what it has drawn is its fingerprint."""

    def __init__(self, settings: Any):
        numbers = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
        whole = TensorDataset(numbers, numbers.sum(1, keepdim=True))
        self.train_set, self.val_set = random_split(whole, [70, 30])
        self.objective = Objective(lambda outputs, targets: (outputs - targets).square().mean(1))

    def build_model(self) -> nn.Module:
        return self.model_from(self.description())

    def label(self) -> str:
        return "drawn"

    def description(self) -> dict[str, Any]:
        return {}

    @classmethod
    def model_from(cls, description: Mapping[str, Any]) -> nn.Module:
        return nn.Linear(3, 1)

    def fingerprint(self) -> str:
        return str(self.val_set.indices)  # type: ignore[attr-defined]  # of a Subset
