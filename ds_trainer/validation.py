"""Exact metrics: every example counts once, at any world size and batch size.

Each example's numbers are written to its own row of a table, the tables of all ranks are added, and metrics are
computed from the whole table in the order of the split. Adding zeros is exact, and batches are cut the same way at any
world size, so the result is the same to the last bit on one rank and on many. A table of 25,000 examples with three
measures is 1 MB.

Axes: B examples of a batch, N examples of the split, M measures.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ds_trainer.batches import BatchLoader, ShardedSampler, size_of
from ds_trainer.distributed import all_sum, gathered
from ds_trainer.errors import TaskError
from ds_trainer.objective import Objective
from ds_trainer.watch.whereabouts import stand_at

if TYPE_CHECKING:
    from ds_trainer.task import Task

_MOST_NAMED = 5
_NUM_OWN = 2
"""Columns of the table before the measures: how often an example was seen, and its loss."""


@dataclass(frozen=True)
class Metrics:
    """What validation found; identical on every rank.

    Args:
        loss: mean over the examples.
        named: what the objective makes of the measures, such as top1.
        losses_N: float64[N], by example.
        measures_NM: float64[N, M], by example.
    """

    loss: float
    named: dict[str, float]
    losses_N: Tensor
    measures_NM: Tensor


def non_finite_examples(metrics: Metrics, name_of: Callable[[int], str]) -> str | None:
    """Those whose loss is NaN or infinite, in words; None if there is none."""
    bad = (~metrics.losses_N.isfinite()).nonzero().flatten().tolist()
    if not bad:
        return None
    names = ", ".join(map(name_of, bad[:_MOST_NAMED])) + (", ..." if len(bad) > _MOST_NAMED else "")
    return f"{len(bad)} of {len(metrics.losses_N)} examples ({names})"


def in_order(task: "Task", dataset: Dataset[Any], micro_batch: int) -> BatchLoader:
    """Every example of a data set once, for validation."""
    sampler = ShardedSampler(size_of(dataset), micro_batch)
    return BatchLoader(dataset, sampler, task.prepare, task.collate, task.num_workers)


@torch.no_grad()
def validate(model: Callable[..., Any], objective: Objective, batches: BatchLoader) -> Metrics:
    """The loss and metrics of `model` over the whole split of `batches`. Collective.

    Args:
        model: an engine or a plain module; left in evaluation mode.

    Raises:
        TaskError: what is measured of an example is not as many numbers in each batch; on every rank.
    """
    if isinstance(model, torch.nn.Module):
        model.eval()
    num_examples = batches.num_examples
    table: Tensor | None = None
    widths: set[int] = set()
    for batch in batches:
        stand_at("validating")
        outputs = model(*batch.inputs)
        rows = objective.rows(outputs, batch.targets, len(batch.weight_B))
        rows = torch.cat([torch.ones_like(rows[:, :1]), rows], dim=1)
        rows = torch.where(batch.weight_B[:, None] > 0, rows, 0.0)
        if table is None:
            table = torch.zeros(num_examples, rows.shape[1], dtype=torch.float64, device=rows.device)
        widths.add(rows.shape[1] - _NUM_OWN)
        if len(widths) == 1:  # else it is told below, by all ranks
            table.index_add_(0, batch.index_B, rows)
    assert table is not None, "a split has at least one example"
    _refuse_uneven(widths)
    stand_at("scoring")
    return _metrics(all_sum(table).cpu(), objective)  # here, and for the widths, validation waits for the device


def _refuse_uneven(widths: set[int]) -> None:
    """Have a table of one width on all ranks. Collective."""
    found = sorted(set().union(*gathered(widths)))
    if len(found) > 1:
        raise TaskError(
            f"the task's objective: measure gives {found[0]} numbers of each example in one batch and {found[-1]} in "
            "another, expected the same in each; fill them up to the longest of all splits, or give counts"
        )


def _metrics(table: Tensor, objective: Objective) -> Metrics:
    times_seen_N, losses_N, measures_NM = table[:, 0], table[:, 1], table[:, _NUM_OWN:]
    num_seen, num_examples = int(times_seen_N.sum()), len(table)
    if not bool((times_seen_N == 1).all()):
        raise RuntimeError(
            f"validation saw {num_seen} examples of a split of {num_examples}, each of which counts once"
        )
    return Metrics(losses_N.mean().item(), objective.metrics(measures_NM), losses_N, measures_NM)
