"""Objectives as users write them, of weights of their own or of the whole batch: `--task own_objectives:Batchwise`."""

from typing import Any

import torch
from own_tasks import Drawn
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Subset

from ds_trainer.objective import Objective


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().flatten(1).mean(1)


class Centres(nn.Module):
    def __init__(self, is_learnt: bool = True):
        super().__init__()
        self.centre = nn.Parameter(torch.full((1,), 0.5), requires_grad=is_learnt)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return squares(outputs - self.centre, targets)


class Centred(Drawn):
    def __init__(self, settings: Any):
        super().__init__(settings)
        self.objective = Objective(Centres())


class CentredInTraining(Drawn):
    """Its learnt number is no parameter, and only what training minimises closes over it."""

    def __init__(self, settings: Any):
        super().__init__(settings)
        number = torch.zeros((), requires_grad=True)
        self.objective = Objective(squares, training_loss=lambda outputs, targets: squares(outputs, targets) * number)


class CentredAndFrozen(Drawn):
    def __init__(self, settings: Any):
        super().__init__(settings)
        self.objective = Objective(Centres(is_learnt=False))


class Differentiating(Drawn):
    """Makes in each pass what it differentiates by, which is nothing learnt; its training knows no such answers."""

    def __init__(self, settings: Any):
        super().__init__(settings)
        self.objective = Objective(self.loss, training_loss=lambda outputs, targets: outputs["none"])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return squares(outputs * torch.ones(1, requires_grad=True), targets)


class WithTheModel(Drawn):
    """Its loss has a penalty of the model's own weights."""

    def __init__(self, settings: Any):
        super().__init__(settings)
        self.objective = Objective(lambda outputs, targets: squares(outputs, targets) + self.layer.weight.norm())

    def build_model(self) -> nn.Module:
        self.layer = super().build_model()
        return self.layer


class BatchMean(Drawn):
    def __init__(self, settings: Any):
        super().__init__(settings)
        self.objective = Objective(lambda outputs, targets: functional.mse_loss(outputs, targets).expand(len(outputs)))


class Broadcast(Drawn):
    def __init__(self, settings: Any):
        super().__init__(settings)
        self.objective = Objective(lambda outputs, targets: (outputs - targets.squeeze(1)).square().mean(1))


class Contrastive(Drawn):
    """Tells which target belongs to an answer among those of the batch."""

    def __init__(self, settings: Any):
        super().__init__(settings)
        self.objective = Objective(self.loss)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        own = torch.arange(len(outputs), device=outputs.device)
        return functional.cross_entropy(-(outputs - targets.T).square(), own, reduction="none")


class Noisy(Drawn):
    """Draws random numbers wherever it can, in validation too."""

    def __init__(self, settings: Any):
        super().__init__(settings)
        self.objective = Objective(lambda outputs, targets: squares(outputs + torch.rand_like(outputs), targets))
        self.val_set = NoisyItems()

    @classmethod
    def model_from(cls, description: Any) -> nn.Module:
        return NoisyNet(3, 1)


class NoisyNet(nn.Linear):
    def forward(self, numbers: Tensor) -> Tensor:
        return super().forward(numbers + torch.randn_like(numbers))


class NoisyItems(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.randn(3), torch.randn(1)


class Padded(Drawn):
    """Sequences, padded as long as the longest in the batch, over which it takes means in bf16."""

    def __init__(self, settings: Any):
        super().__init__(settings)
        draw = torch.Generator().manual_seed(0)
        lengths = torch.arange(8, 248, 8)
        self.val_set = [(torch.randn(length, 3, generator=draw) + 2, torch.ones(1)) for length in lengths.tolist()]  # type: ignore[assignment]
        self.train_set = Subset(self.val_set, range(30))
        self.collate = pad_pairs

    @classmethod
    def model_from(cls, description: Any) -> nn.Module:
        return MaskedMean(3, 1)


def pad_pairs(items: list[Any]) -> tuple[Tensor, Tensor]:
    sequences, targets = zip(*items, strict=True)
    return pad_sequence(sequences, batch_first=True, padding_value=torch.nan), torch.stack(targets)


class MaskedMean(nn.Linear):
    def forward(self, numbers: Tensor) -> Tensor:
        return super().forward(numbers).tanh().nanmean(1)


class PaddedUnmasked(Padded):
    """Takes what was padded for a part of its sequence."""

    @classmethod
    def model_from(cls, description: Any) -> nn.Module:
        return PlainMean(3, 1)


class PlainMean(nn.Linear):
    def forward(self, numbers: Tensor) -> Tensor:
        return super().forward(numbers.nan_to_num()).mean(1)


class SparseTable(Drawn):
    @classmethod
    def model_from(cls, description: Any) -> nn.Module:
        return Looking(3, 1)


class Looking(nn.Linear):
    def __init__(self, num_inputs: int, num_outputs: int):
        super().__init__(num_inputs, num_outputs)
        self.table = nn.Parameter(torch.zeros(2, num_outputs))

    def forward(self, numbers: Tensor) -> Tensor:
        return super().forward(numbers) + functional.embedding((numbers[:, 0] > 0).long(), self.table, sparse=True)
