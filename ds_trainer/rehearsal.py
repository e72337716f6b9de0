"""One batch of the validation split before training, and what saving reads: what would fail after an epoch, or in the
end, is told at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ds_trainer import classification
from ds_trainer.batches import BatchLoader, ShardedSampler, size_of
from ds_trainer.distributed import gathered, is_master
from ds_trainer.engine.engine import plain_module
from ds_trainer.engine.state import engine_state
from ds_trainer.errors import TaskError
from ds_trainer.loss_rules import NOT_ALONE, Answered, beside_others, depends_on_others, learnt_elsewhere, losses_of
from ds_trainer.problems import reason_of, shortened
from ds_trainer.progress import log
from ds_trainer.randomness import seed_torch
from ds_trainer.task import Task
from ds_trainer.watch.whereabouts import stand_at

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

_MOST_EXAMPLES = 8
_NUM_COLUMNS = 3


def rehearse(engine: "DeepSpeedEngine", task: Task, micro_batch: int, is_compiled: bool) -> None:
    """Answer to the first validation examples, measure the answers, summarise them, and read what is saved. Collective.

    Half of them are answered once more, beside others. It leaves no trace, but in a loss that remembers: random numbers
    are seeded before each use, and buffers are put back.

    Args:
        is_compiled: whether the model is compiled, for whole micro-batches; else a few examples do.

    Raises:
        TaskError: the task cannot be validated or scored so; on every rank.
    """
    stand_at("rehearsing")
    num_examples = micro_batch if is_compiled else min(micro_batch, _MOST_EXAMPLES)
    whole = _answered(engine, task, task.val_set, num_examples)
    half = _answered(engine, task, beside_others(task.val_set, whole.batch.source.indices), num_examples)
    with torch.no_grad():
        problems_here = _problems(task, whole)
    losses = losses_of(task.objective, whole, half)
    problems_here = problems_here or learnt_elsewhere(losses, engine.module)
    of_ranks = gathered((problems_here, not problems_here and depends_on_others(losses, whole, half)))
    problems = [problem for of_rank, _ in of_ranks for problem in of_rank]
    if problems:
        raise TaskError(shortened(list(dict.fromkeys(problems))))
    if is_master() and any(depends for _, depends in of_ranks):
        log.warning(NOT_ALONE)
    refuse_unsavable(engine)


def _answered(engine: "DeepSpeedEngine", task: Task, dataset: Dataset[Any], num_examples: int) -> Answered:
    """The first examples of a split, and the answers to them. Collective."""
    sampler = ShardedSampler(size_of(dataset), num_examples)
    batch = next(iter(BatchLoader(dataset, sampler, task.prepare, task.collate)))
    engine.eval()
    with torch.no_grad(), _buffers_held(plain_module(engine)):
        seed_torch(batch.seed)
        return Answered(batch, engine(*batch.inputs))


def refuse_unsavable(engine: "DeepSpeedEngine") -> None:
    """Read all that a resume point holds: 0.1 s for 50 million weights on one CPU core. Collective.

    Raises:
        TaskError: it cannot be read; on every rank.
    """
    try:
        engine_state(engine)
    except (AttributeError, KeyError, TypeError) as error:
        raise TaskError(
            f"what training saves cannot be read ({type(error).__name__}: {reason_of(error)}), expected the weights "
            "and buffers that the model was built with, as tensors; make buffers in __init__, not in the forward pass, "
            "or take another engine config"
        ) from error


@contextmanager
def _buffers_held(model: nn.Module) -> Iterator[None]:
    held = [(buffer, buffer.clone()) for buffer in model.buffers()]
    yield
    for buffer, numbers in held:
        buffer.copy_(numbers)


def _problems(task: Task, answered: Answered) -> list[str]:
    batch, outputs = answered
    try:
        if task.class_names is not None:
            _refuse_no_classification(outputs, batch.targets)
        rows = task.objective.rows(outputs, batch.targets, len(batch.weight_B))
        if task.class_names is not None:
            _refuse_other_measures(rows[:, 1:], batch.targets)
        if task.objective.summarise is not classification.summarise:  # sound, and loads scikit-learn for a second
            _summarise(task, rows[: max(1, batch.source.num_real), 1:].cpu())
    except TaskError as error:
        return error.problems
    return []


def _refuse_no_classification(outputs: Any, targets: Any) -> None:
    """Confidences and tables by class are computed of one score for each class, and of one class of each example."""
    remedy = "as class_names asks for; leave class_names out where an example has not one class of these"
    if not (isinstance(outputs, Tensor) and outputs.ndim == 2 and outputs.is_floating_point()):
        raise TaskError(f"the task's model: answers with {_kind(outputs)}, expected float[B, S] {remedy}")
    if not (isinstance(targets, Tensor) and targets.ndim == 1 and not targets.is_floating_point()):
        raise TaskError(f"the task's targets: found {_kind(targets)}, expected int64[B] {remedy}")
    first, last, num_classes = int(targets.min()), int(targets.max()), outputs.shape[1]
    if first < 0 or last >= num_classes:  # a GPU would end the process without a word of them
        raise TaskError(
            f"the task's targets: found classes {first} to {last}, expected 0 to {num_classes - 1}, as the model "
            f"scores {num_classes}; number them from 0"
        )


def _refuse_other_measures(measures_BM: Tensor, targets_B: Tensor) -> None:
    """The tables and plots by class read the first columns."""
    if measures_BM.shape[1] < _NUM_COLUMNS or not torch.equal(measures_BM[:, 0], targets_B.to(measures_BM)):
        raise TaskError(
            "the task's objective: measure does not begin with what classification.measure gives (target, rank, "
            "prediction), as class_names asks for; put its columns before your own, or leave class_names out"
        )


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return type(value).__name__


def _summarise(task: Task, measures_BM: Tensor) -> None:
    try:
        task.objective.metrics(measures_BM)
    except TaskError:
        raise
    except Exception as error:  # it may do with a whole split, in which there are examples of two classes, say
        if is_master():
            log.warning(
                f"the task's objective: summarise fails on the first {len(measures_BM)} validation examples "
                f"({type(error).__name__}: {reason_of(error)}); if it does so on all, training ends after an epoch"
            )
