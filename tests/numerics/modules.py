"""Modules of kinds that an engine could stumble over: each takes 16 numbers an example and makes 4."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations


class Normed(nn.Module):
    """Layers with running statistics, trained and frozen, and some without weights."""

    def __init__(self) -> None:
        super().__init__()
        # No bias before a norm or in keys: its gradient is 0 but for rounding, of which Adam makes full steps.
        self.trained = nn.Sequential(
            nn.Linear(16, 8, bias=False), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 8, bias=False)
        )
        self.frozen = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)).requires_grad_(False)
        self.last = nn.Sequential(nn.BatchNorm1d(8, affine=False), nn.Linear(8, 4))

    def forward(self, numbers_BC: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.frozen(self.trained(numbers_BC)))
        return outputs


class Buffers(nn.Module):
    """A table that is added, a running mean of its own, a counter, and one of another shape on each rank."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 8), nn.Linear(8, 4)
        self.register_buffer("table", torch.linspace(-1, 1, 8))
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seen", torch.zeros(0), persistent=False)

    def forward(self, numbers_BC: Tensor) -> Tensor:
        hidden = self.first(numbers_BC) + self.table
        if self.training:
            self.count += 1
            self.mean = 0.5 * self.mean + 0.5 * hidden.detach().mean(0)
            self.seen = numbers_BC.detach().flatten()[: 1 + int(numbers_BC[0, 0] > 0)]
        outputs: Tensor = self.last(torch.tanh(hidden - self.mean))
        return outputs


class Parametrised(nn.Module):
    """Weights that are computed from others."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            parametrizations.weight_norm(nn.Linear(16, 8)), nn.GELU(), parametrizations.spectral_norm(nn.Linear(8, 4))
        )

    def forward(self, numbers_BC: Tensor) -> Tensor:
        outputs: Tensor = self.layers(numbers_BC)
        return outputs


class Attending(nn.Module):
    """What torch has for transformers, with a token and a scale of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.token = nn.Linear(4, 8), nn.Parameter(torch.zeros(1, 1, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, bias=False)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.scales = nn.ParameterList([torch.ones(8)])
        self.last = nn.Linear(8, 4)

    def forward(self, numbers_BC: Tensor) -> Tensor:
        tokens_BTD = torch.cat([self.token.expand(len(numbers_BC), -1, -1), self.first(numbers_BC.view(-1, 4, 4))], 1)
        outputs: Tensor = self.last(self.encoder(tokens_BTD)[:, 0] * self.scales[0])
        return outputs


class Laid(nn.Module):
    """Single numbers, learned and frozen, and frozen weights that are laid out in another order and complex."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 2).to(memory_format=torch.channels_last).requires_grad_(False)
        self.last = nn.Linear(4, 4)
        self.temperature = nn.Parameter(torch.tensor(1.5))
        self.size = nn.Parameter(torch.tensor(0.5), requires_grad=False)
        self.turn = nn.Parameter(torch.tensor([1j]), requires_grad=False)

    def forward(self, numbers_BC: Tensor) -> Tensor:
        images = numbers_BC.view(-1, 2, 4, 2).to(memory_format=torch.channels_last)
        sign = (self.turn * self.turn).real.to(images.dtype)
        outputs: Tensor = self.last(self.conv(images * self.size * sign).mean((2, 3))) * self.temperature
        return outputs


class Scripted(nn.Module):
    """A part that cannot be taken apart."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.jit.script(nn.Sequential(nn.Linear(16, 8), nn.ReLU()))
        self.last = nn.Linear(8, 4)

    def forward(self, numbers_BC: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.first(numbers_BC))
        return outputs


class Seldom(nn.Module):
    """Layers that take turns: in each training step one has no gradient; recurrent, so that none is made flat."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = nn.ModuleList(nn.RNN(4, 8, batch_first=True, bias=False) for _ in range(2))
        self.last = nn.Linear(8, 4)
        self.num_passes = 0

    def forward(self, numbers_BC: Tensor) -> Tensor:
        turn = self.turns[self.num_passes % 2 if self.training else 0]
        self.num_passes += self.training
        outputs: Tensor = self.last(turn(numbers_BC.view(-1, 4, 4))[0][:, -1])
        return outputs


MODULES: dict[str, type[nn.Module]] = {
    module.__name__: module for module in (Normed, Buffers, Parametrised, Attending, Laid, Scripted, Seldom)
}
INDIVISIBLE = {Laid.__name__, Scripted.__name__}
