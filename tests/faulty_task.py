"""A task whose model or data makes NaN or infinity in one clip, number 5, in the way that `--fault` says."""

import random
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from ds_trainer import distributed
from ds_trainer.objective import Objective
from ds_trainer.randomness import Draw
from ds_trainer.settings import TaskSettings, setting
from ds_trainer.task import Task

NUM_CLIPS, BAD = 12, 5
MARK = 2.0
"""The target that the bad clip is known by."""


class FaultSettings(TaskSettings):
    fault: str = setting("none", "faulty task", "what goes wrong")


class Clips(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, fault: str):
        self.points = torch.rand(NUM_CLIPS, 3, generator=torch.Generator().manual_seed(1)) + 0.5
        self.targets = torch.ones(NUM_CLIPS)
        if fault == "loss":
            self.targets[BAD] = 0.0
        elif fault == "augmentation":
            self.targets[BAD] = MARK
        elif fault in FEATURES:
            self.points[BAD] = FEATURES[fault]

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        scale = 1 + 0.01 * torch.rand(()) + 0.01 * random.random()  # a data set may draw numbers of its own
        return self.points[number] * scale, self.targets[number]

    def name_of(self, number: int) -> str:
        return f"clip-{number:02}"


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.square().sum(1, keepdim=True).sqrt().expand_as(x)


class Logarithm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.abs().log()


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.square().square()


class NearOne(nn.Module):
    """Its weight is 1 in bf16, and a little more in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), 1.001))

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.weight - 1).log()


class Attention(nn.Module):
    """Hides the numbers of a clip that are 0, all of them in the bad one; the mask is meant."""

    def __init__(self) -> None:
        super().__init__()
        self.softmax = nn.Softmax(dim=1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        weighted: Tensor = self.softmax(x + mask) * x
        return weighted


MIDDLES: dict[str, type[nn.Module]] = {
    "root": Root,
    "compiled root": Root,
    "logarithm": Logarithm,
    "square": Square,
    "half": Square,
    "near one": NearOne,
    "attention": Attention,
}


class Net(nn.Module):
    def __init__(self, fault: str):
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        if fault == "compiled root":
            self.first.compile(backend="eager")
        self.dropout = nn.Dropout(0.2)
        self.middle = MIDDLES.get(fault, nn.Identity)()
        self.norm = nn.BatchNorm1d(3) if fault == "data" else nn.Identity()
        self.last = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        unused = 1 / torch.zeros_like(x)  # infinite in every clip, and without harm
        hidden = torch.where(x.isnan(), unused, self.first(x))
        if isinstance(self.middle, Attention):
            mask = torch.zeros_like(x).masked_fill(x == 0, float("-inf"))
            hidden = self.middle(hidden, mask)
        else:
            hidden = self.middle(hidden)
        outputs: Tensor = self.last(self.dropout(self.norm(hidden)))
        return outputs


FEATURES = {
    "root": 0.0,
    "compiled root": 0.0,
    "logarithm": 0.0,
    "square": 1e20,
    "half": 40.0,
    "attention": 0.0,
    "data": float("nan"),
}
"""What stands in the bad clip."""


class FaultyTask(Task):
    settings_type = FaultSettings

    def __init__(self, settings: Any):
        self.fault = settings.fault
        self.train_set = self.val_set = Clips(settings.fault)
        if settings.fault == "other data" and distributed.rank() == 1:
            self.train_set = Subset(self.train_set, range(NUM_CLIPS - 1))
        self.objective = Objective(loss=lambda outputs, targets: outputs.square().sum(1) / targets)

    def prepare(self, items: Any, device: torch.device, draw: Draw | None) -> tuple[tuple[Tensor, ...], Any]:
        (points,), targets = super().prepare(items, device, draw)
        if draw is not None:
            points = points * draw.on(device).between("scale", 0.9, 1.1)
            if self.fault == "augmentation":
                points[targets == MARK] = float("inf")
        return (points,), targets

    def build_model(self) -> nn.Module:
        return self.model_from(self.description())

    def label(self) -> str:
        return "faulty"

    def description(self) -> dict[str, Any]:
        return {"fault": self.fault}

    @classmethod
    def model_from(cls, description: Mapping[str, Any]) -> nn.Module:
        return Net(description["fault"])

    def fingerprint(self) -> str:
        return "same data"
