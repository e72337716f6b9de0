"""Small tasks as users write them, each with something of its own: `--task own_tasks:Drawn`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset, default_collate, random_split

from ds_trainer import classification
from ds_trainer.classification import classification_objective
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
        return str(self.train_set.indices)  # type: ignore[attr-defined]  # of a Subset


def _squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().flatten(1).mean(1)


class Measuring(Drawn):
    """Measures its losses, and has `summarise` to say what that comes to."""

    def __init__(self, settings: Any):
        super().__init__(settings)
        measure = lambda outputs, targets: _squares(outputs, targets)[:, None]  # noqa: E731
        self.objective = Objective(_squares, measure, self.summarise)

    def groups(self, dataset: Any) -> list[str]:
        return ["even", "odd"] * (len(dataset) // 2)

    def summarise(self, measures_NM: Tensor) -> Any:
        return {"worst": measures_NM.max()}  # a tensor, which no JSON takes


class TakenName(Measuring):
    def summarise(self, measures_NM: Tensor) -> Any:
        return {"step": 1.0, "loss": 2.0}


class NoNames(Measuring):
    def summarise(self, measures_NM: Tensor) -> Any:
        return None


class NoNumber(Measuring):
    def summarise(self, measures_NM: Tensor) -> Any:
        return {"worst": [1.0, 2.0]}


class OfTheWhole(Measuring):
    """As a rank correlation does, it needs more examples than a batch has."""

    def summarise(self, measures_NM: Tensor) -> Any:
        if len(measures_NM) < 100:
            raise ValueError("too few examples")
        return {}


class Classes(Drawn):
    """Two classes, in the double precision of numpy."""

    def __init__(self, settings: Any):
        numbers = np.random.default_rng(0).normal(size=(60, 3))
        whole = TensorDataset(torch.from_numpy(numbers), self.targets(torch.from_numpy(numbers.sum(1) > 0).long()))
        self.train_set, self.val_set = random_split(whole, [40, 20])
        self.class_names = ["below", "above"]
        self.objective = classification_objective(2)

    def targets(self, class_N: Tensor) -> Tensor:
        return class_N

    @classmethod
    def model_from(cls, description: Mapping[str, Any]) -> nn.Module:
        return nn.Linear(3, 2)


class SeveralLabels(Classes):
    def __init__(self, settings: Any):
        super().__init__(settings)
        loss = functional.binary_cross_entropy_with_logits
        self.objective = Objective(
            lambda outputs, targets: loss(outputs, targets.float(), reduction="none").mean(1),
            lambda outputs, targets: (outputs > 0).double(),
        )

    def targets(self, class_N: Tensor) -> Tensor:
        return torch.stack([class_N, 1 - class_N], dim=1)


class FromOne(Classes):
    """Its classes are numbered as people count."""

    def targets(self, class_N: Tensor) -> Tensor:
        return class_N + 1


class OtherMeasures(Classes):
    def __init__(self, settings: Any):
        super().__init__(settings)
        usual = self.objective
        measure = lambda outputs, targets: classification.measure(outputs, targets).flip(1)  # noqa: E731
        self.objective = replace(usual, measure=measure)


class NamedOutputs(Classes):
    def __init__(self, settings: Any):
        super().__init__(settings)
        usual = self.objective
        measure = lambda outputs, targets: classification.measure(outputs["logits"], targets)  # noqa: E731
        self.objective = Objective(lambda outputs, targets: usual.loss(outputs["logits"], targets), measure)

    @classmethod
    def model_from(cls, description: Mapping[str, Any]) -> nn.Module:
        return Naming(3, 2)


class Naming(nn.Linear):
    def forward(self, numbers: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"logits": super().forward(numbers)}


class MakesBuffer(Drawn):
    @classmethod
    def model_from(cls, description: Mapping[str, Any]) -> nn.Module:
        return Masking(3, 1)


class Masking(nn.Linear):
    def forward(self, numbers: Tensor) -> Tensor:
        self.register_buffer("mask", torch.ones_like(numbers))
        return super().forward(numbers * self.mask)


class BadValidation(Drawn):
    """The target of one validation example is not a number."""

    def __init__(self, settings: Any):
        super().__init__(settings)
        self.val_set = self.with_bad()

    def with_bad(self) -> TensorDataset:
        targets = torch.zeros(8, 1)
        targets[5] = torch.nan
        return TensorDataset(torch.zeros(8, 3), targets)


class BadTest(BadValidation):
    def __init__(self, settings: Any):
        Drawn.__init__(self, settings)
        self.test_set = self.with_bad()


class Constant(Drawn):
    def __init__(self, settings: Any):
        super().__init__(settings)
        self.objective = Objective(lambda outputs, targets: _squares(outputs.detach(), targets))


class Texts(Drawn):
    def __init__(self, settings: Any):
        super().__init__(settings)
        self.train_set = self.val_set = [(torch.ones(3), "one")] * 40  # type: ignore[assignment]

    def fingerprint(self) -> str:
        return ""


class Unset(Drawn):
    def __init__(self, settings: Any):
        super().__init__(settings)
        del self.val_set


class Collated(Drawn):
    collate = default_collate


class Unfinished(Task):
    def __init__(self, settings: Any):
        pass

    def label(self) -> str:
        return "unfinished"
