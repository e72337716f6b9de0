"""Points on noisy spiral arms; the class is the arm. Small, but no straight line separates it.

Axes: B examples, S classes.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ds_trainer.classification import classification_objective
from ds_trainer.randomness import Draw
from ds_trainer.settings import TaskSettings, setting
from ds_trainer.task import Task


class ToySettings(TaskSettings):
    """What can be chosen about the spirals."""

    num_arms: int = setting(3, "toy task", "spiral arms, which are the classes", ge=2, le=1000)
    num_points: int = setting(600, "toy task", "points in all; a fifth each for validation and test", ge=20, le=10**7)
    num_hidden: int = setting(32, "toy task", "units in each hidden layer", ge=1, le=10_000)
    dropout: float = setting(0.1, "toy task", "fraction of hidden units left out in training", ge=0, lt=1)
    jitter: float = setting(
        0.02, "toy task", "largest shift of a point in training, in units of the spiral's radius", ge=0
    )


class SpiralNet(nn.Module):
    """Two hidden layers: float[B, 2] -> logits float[B, S]."""

    def __init__(self, num_hidden: int, num_arms: int, dropout: float):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, num_hidden),
            nn.LayerNorm(num_hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(num_hidden, num_hidden),
            nn.GELU(),
            nn.Linear(num_hidden, num_arms),
        )

    def forward(self, points_B2: Tensor) -> Tensor:
        """Logits float[B, S]."""
        logits: Tensor = self.layers(points_B2)
        return logits


def spirals(num_arms: int, num_points: int, seed: int) -> TensorDataset:
    """Points float[N, 2] in the unit disc and the arm int[N] of each."""
    generator = torch.Generator().manual_seed(seed)
    arm = torch.arange(num_points) % num_arms
    radius = torch.rand(num_points, generator=generator).sqrt()
    noise = 0.15 * torch.randn(num_points, generator=generator)
    angle = 2 * math.pi * arm / num_arms + 4 * radius + noise
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    return TensorDataset(points, arm)


class ToyTask(Task):
    """Tell the arms of a spiral apart."""

    settings_type = ToySettings

    def __init__(self, settings: Any):
        self.settings = settings
        num_held_out = settings.num_points // 5
        seed = settings.seed % 2**60  # three times that, and more, is still a seed for torch
        self.train_set = spirals(settings.num_arms, settings.num_points - 2 * num_held_out, 3 * seed)
        self.val_set = spirals(settings.num_arms, num_held_out, 3 * seed + 1)
        self.test_set = spirals(settings.num_arms, num_held_out, 3 * seed + 2)
        self.class_names = [f"arm {arm + 1}" for arm in range(settings.num_arms)]
        self.objective = classification_objective(settings.num_arms)

    def prepare(self, items: Any, device: torch.device, draw: Draw | None) -> tuple[tuple[Tensor, ...], Any]:
        (points_B2,), arm_B = super().prepare(items, device, draw)
        if draw is not None:
            points_B2 = points_B2 + draw.on(device).between("jitter", -self.settings.jitter, self.settings.jitter, 2)
        return (points_B2,), arm_B

    def build_model(self) -> nn.Module:
        return self.model_from(self.description())

    def label(self) -> str:
        return f"toy-arms_{self.settings.num_arms}"

    def description(self) -> dict[str, Any]:
        names = ("num_hidden", "num_arms", "dropout")
        return {name: getattr(self.settings, name) for name in names}

    @classmethod
    def model_from(cls, description: Mapping[str, Any]) -> nn.Module:
        return SpiralNet(**description)
