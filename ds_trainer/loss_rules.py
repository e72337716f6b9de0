"""What the loss of an example may depend on: on what the model answers, and on no other example.

A loss of weights of its own learns nothing, and one of the whole batch is another where a batch is filled up: both
train without a word.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import Dataset, Subset

from ds_trainer.batches import Batch
from ds_trainer.distributed import world_size
from ds_trainer.objective import Objective
from ds_trainer.randomness import seed_torch

_SAME_SHAPES = 1e-3
_OTHER_SHAPES = 0.1  # a longer padding has bf16 round in other places
"""The largest part of a loss by which it may differ beside other examples."""

NOT_ALONE = (
    "the task's objective: the loss of an example depends on the others in its batch (or the model's answer does), and "
    "a batch that lacks examples is filled up with copies of others, of weight 0; expected a loss of each example "
    "alone: look for mean() and for shapes such as [B, 1] and [B] in it. If it is meant, give each split a multiple of "
    "micro-batch x ranks examples"
)


class Answered(NamedTuple):
    """A batch, and what the model makes of its inputs."""

    batch: Batch
    outputs: Any


def beside_others(dataset: Dataset[Any], indices: Sequence[int]) -> Dataset[Any]:
    """A split whose first batch is, on this rank, the first half of these examples, filled up with copies of one."""
    kept = list(indices[: _num_kept(indices)])
    return Subset(dataset, [*kept, *kept[:1] * (len(indices) - len(kept))] * world_size())


class Losses(NamedTuple):
    """What one loss says of the examples of a batch, and of half of them in a batch of `beside_others`.

    None where it cannot be computed, as one of training that asks for other answers.
    """

    whole: Tensor | None
    half: Tensor | None


def losses_of(objective: Objective, whole: Answered, half: Answered) -> list[Losses]:
    """Those of the objective, with their graphs. Each is computed, whatever the others say: it may be collective."""
    return [
        Losses(_computed(loss, whole), _computed(loss, half))
        for loss in (objective.loss, objective.training_loss)
        if loss is not None
    ]


def depends_on_others(losses: Sequence[Losses], whole: Answered, half: Answered) -> bool:
    """Whether examples have another loss beside others."""
    return any(_differ(of_loss, whole, half) for of_loss in losses)


def learnt_elsewhere(losses: Sequence[Losses], model: nn.Module) -> list[str]:
    """A problem for each weight of a loss that is not the model's.

    What a pass makes for itself, such as an input by which it differentiates, another pass makes anew.
    """
    own = {id(weight) for weight in model.parameters()}
    problems = []
    for of_loss in losses:
        leaves, kept = ({id(leaf): leaf for leaf in _leaves(losses_B)} for losses_B in of_loss)
        problems += [
            f"the task's objective: the loss depends on a weight of the shape {tuple(leaf.shape)} that is none of the "
            "model's, so it is neither trained nor saved; expected all that is learnt in the model, whose forward "
            "returns what the loss needs of it (or requires_grad_(False), where it is to stay as it is)"
            for key, leaf in leaves.items()
            if key in kept and key not in own
        ]
    return problems


def _computed(loss: Callable[[Any, Any], Tensor], answered: Answered) -> Tensor | None:
    seed_torch(answered.batch.seed)
    with suppress(Exception), torch.enable_grad():
        return loss(answered.outputs, answered.batch.targets)
    return None


def _leaves(losses: Tensor | None) -> Iterator[Tensor]:
    """What requires a gradient, and is computed from nothing else, of all that the losses are computed from."""
    waiting = [] if losses is None else [losses.grad_fn]
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting += [before for before, _ in node.next_functions]


def _num_kept(indices: Sequence[int]) -> int:
    return max(1, len(indices) // 2)


def _differ(losses: Losses, whole: Answered, half: Answered) -> bool:
    num_kept = _num_kept(whole.batch.source.indices)
    expected, found = (None if losses_B is None else losses_B.detach()[:num_kept] for losses_B in losses)
    if expected is None or found is None:
        return False
    size = expected.abs()
    tolerance = _SAME_SHAPES if _shapes(whole) == _shapes(half) else _OTHER_SHAPES
    return bool(((found - expected).abs() > tolerance * size.clamp(min=size.mean())).any())


def _shapes(answered: Answered) -> list[torch.Size]:
    return [leaf.shape for leaf in tree_leaves(answered.batch.inputs) if isinstance(leaf, Tensor)]
