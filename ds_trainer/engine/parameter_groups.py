"""How the optimizer treats each weight: whether it decays, and at which part of the learning rate it is trained."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

_FACTOR = "learning_rate_factor"


class Treatment(NamedTuple):
    """What the weights of a parameter group have in common."""

    decays: bool
    learning_rate_factor: float


TreatmentOf = Callable[[Tensor], Treatment]


def decays(weight: Tensor) -> bool:
    """Whether weight decay belongs to a weight: to matrices, not to biases and the scales of norms.

    Those have no redundant size that it would keep small, and are often wanted far from 0.
    """
    return weight.ndim > 1


def treatments(model: nn.Module, learning_rate_factor: Callable[[str], float]) -> TreatmentOf:
    """How each trained weight of a model is treated, by the first of its names."""
    found: dict[Tensor, Treatment] = {
        weight: Treatment(decays(weight), float(learning_rate_factor(name)))
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }
    return found.__getitem__


def parameter_groups(
    parameters: Iterable[nn.Parameter], treatment_of: TreatmentOf, learning_rate: float
) -> list[dict[str, Any]]:
    """What the optimizer trains, those at the full learning rate first and of these the decaying.

    Args:
        learning_rate: of the engine config, whose weight decay is that of the decaying groups.
    """
    groups: dict[Treatment, list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.requires_grad:
            groups.setdefault(treatment_of(parameter), []).append(parameter)
    return [
        {"params": groups[own], "lr": learning_rate * own.learning_rate_factor, _FACTOR: own.learning_rate_factor}
        | ({} if own.decays else {"weight_decay": 0.0})
        for own in sorted(groups, key=lambda own: (own.learning_rate_factor != 1, not own.decays, own))
    ]


def full_learning_rate(groups: Sequence[Mapping[str, Any]]) -> float:
    """The learning rate of the last step, as weights of factor 1 have it.

    `plateau.py` puts it aside where that was a fraction.
    """
    return float(groups[0].get("last_lr", groups[0]["lr"])) / factors(groups)[0]


def factors(groups: Sequence[Mapping[str, Any]]) -> list[float]:
    """The part of the learning rate at which each group is trained; 1 where `parameter_groups` has not made it."""
    return [float(group.get(_FACTOR, 1.0)) for group in groups]


def described(model: nn.Module, learning_rate_factor: Callable[[str], float]) -> list[str]:
    """A line for the log where weights are trained at parts of the learning rate; else none."""
    num_numbers: dict[float, int] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            factor = float(learning_rate_factor(name))
            num_numbers[factor] = num_numbers.get(factor, 0) + weight.numel()
    parts = ", ".join(f"x {factor:g} for {number:,} parameters" for factor, number in sorted(num_numbers.items()))
    return [f"learning rate: {parts}"] if num_numbers.keys() - {1.0} else []
