"""A trained classifier adapted to new examples of one kind, such as the clips of one signer, without their labels.

It becomes as sure of each example as it can (entropy minimisation), while its answers stay as varied as they were, and
a little more: else all examples would end as one class. That is information maximisation (Liang et al. 2020, "Do we
really need to access the source data?", arXiv 2002.08546) with one difference: there answers are spread over all
classes evenly, which harms where the new examples show few of them. No training data is needed.

Axes: B examples of a batch, N examples of a split, S classes, M measures.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from ds_trainer import distributed, gpu
from ds_trainer.batches import size_of
from ds_trainer.errors import TaskError
from ds_trainer.objective import Objective
from ds_trainer.task import Task
from ds_trainer.validation import Metrics, in_order, validate

EXAMPLES_AT_ONCE = 96
NUM_EPOCHS, LEARNING_RATE, VARIETY_WEIGHT, MORE_VARIETY = 20, 1e-4, 2.0, 1.05
"""Chosen on s02, s04 and s06 of isl-kinect30; docs/experiments.md has what others gave."""

Inputs = tuple[Any, ...]


def in_batches(examples: Tensor) -> tuple[Tensor, ...]:
    """Examples, which the first axis counts, in batches of up to `EXAMPLES_AT_ONCE` that differ by one at most."""
    return examples.tensor_split(math.ceil(len(examples) / EXAMPLES_AT_ONCE))


def adapt(model: nn.Module, batches: Sequence[Inputs], temperature: float) -> None:
    """Adapt the model to the examples of the batches, to the same bits each time.

    Weights that are frozen stay so. An example with logits of NaN or inf is left out.

    Args:
        model: in evaluation mode, from inputs to logits float[B, S]. No copy of it: some, such as scripted ones, cannot
            be copied to train.
        batches: inputs of the model, on its device, of up to `EXAMPLES_AT_ONCE` examples.
        temperature: what its logits are divided by, so that it is as sure as it should be.

    Raises:
        TaskError: its answers have no gradient.
    """
    batches = [batch for batch in (_answerable(model, batch) for batch in batches) if batch]
    if not batches:
        return
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    num_steps = NUM_EPOCHS * len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / num_steps)
    order = torch.Generator().manual_seed(0)

    def log_answers(number: int) -> Tensor:
        log_answers_BS = (_logits(model, batches[number]) / temperature).log_softmax(1)
        return log_answers_BS.clamp(min=torch.finfo(log_answers_BS.dtype).min)  # times a probability of 0 it is 0

    with gpu.without_cudnn():
        with torch.no_grad():
            answers = [log_answers(number).exp() for number in range(len(batches))]
        least_variety = _entropy(torch.cat(answers).mean(0)) + math.log(MORE_VARIETY)
        for _ in range(NUM_EPOCHS):
            for number in torch.randperm(len(batches), generator=order).tolist():
                log_answers_BS = log_answers(number)
                _refuse_without_gradient(log_answers_BS)
                answers[number] = log_answers_BS.detach().exp()
                _loss(log_answers_BS, torch.cat(answers).mean(0), least_variety).backward()
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()


def _logits(model: nn.Module, inputs: Inputs) -> Tensor:
    """Those of a copy of the inputs: a model may change in place what it is given, and is given these many times."""
    logits_BS: Tensor = model(*copy.deepcopy(inputs))
    return logits_BS


def _refuse_without_gradient(answers_BS: Tensor) -> None:
    if not answers_BS.requires_grad:
        raise TaskError(
            "the task's model: its answers have no gradient in evaluation mode, expected one to adapt it by; let "
            "`forward` compute as in training, or leave out --adapt"
        )


def is_answer(logits_BS: Tensor) -> Tensor:
    """bool[B], which logits are finite, but for -inf of classes that are ruled out."""
    return (logits_BS < torch.inf).all(1) & logits_BS.isfinite().any(1)


@torch.no_grad()
def _answerable(model: nn.Module, inputs: Inputs) -> Inputs:
    """Those examples that the model answers; empty: there is none."""
    is_known_B = is_answer(_logits(model, inputs))
    if is_known_B.all():
        return inputs
    return tuple(each[is_known_B] for each in inputs) if is_known_B.any() else ()


def _loss(log_answers_BS: Tensor, mean_S: Tensor, least_variety: Tensor) -> Tensor:
    """How unsure the model is of a batch, less the variety of all answers (`mean_S` is their mean) where that lacks."""
    answers_BS = log_answers_BS.exp()
    loss = -(answers_BS * log_answers_BS).sum(1).mean()
    if _entropy(mean_S) < least_variety:
        # Its gradient is that of the entropy of the mean over all examples, by those of this batch.
        loss = loss + VARIETY_WEIGHT * (answers_BS.mean(0) * _log(mean_S)).sum()
    return loss


def validate_adapted(
    model: nn.Module, task: Task, objective: Objective, dataset: Dataset[Any], micro_batch: int, temperature: float
) -> Metrics:
    """The metrics of a data set, each example by a model that was adapted to others of its group. Collective.

    Each group is cut in two at random, and each half is scored by a model adapted to the other: nothing is scored by a
    model that has met it. All ranks adapt alike, and share what is scored. `model` ends as it was.
    """
    trained = copy.deepcopy(model.state_dict())
    groups = np.array(task.groups(dataset) or [""] * size_of(dataset), dtype=np.str_)
    order = torch.Generator().manual_seed(0)
    places, found = [], []
    for group in np.unique(groups).tolist():
        own = torch.from_numpy(np.flatnonzero(groups == group))
        halves = own[torch.randperm(len(own), generator=order)].tensor_split(2)
        for known, scored in (halves, halves[::-1]):
            if len(scored) == 0:
                continue
            if len(known):
                adapt(model, _prepared(task, dataset, known), temperature)
            places.append(scored)
            found.append(validate(model, objective, in_order(task, Subset(dataset, scored.tolist()), micro_batch)))
            model.load_state_dict(trained)
    order_N = torch.cat(places).argsort()
    losses_N = torch.cat([each.losses_N for each in found])[order_N]
    measures_NM = torch.cat([each.measures_NM for each in found])[order_N]
    return Metrics(losses_N.mean().item(), objective.metrics(measures_NM), losses_N, measures_NM)


def _prepared(task: Task, dataset: Dataset[Any], places: Tensor) -> list[Inputs]:
    """Inputs of those examples, as they are outside training."""
    items = (task.collate([dataset[place] for place in batch.tolist()]) for batch in in_batches(places))
    return [task.prepare(each, distributed.device(), None)[0] for each in items]


def _entropy(mean_S: Tensor) -> Tensor:
    """That of a distribution over classes, in nats."""
    return -(mean_S * _log(mean_S)).sum()


def _log(mean_S: Tensor) -> Tensor:
    return mean_S.clamp(min=torch.finfo(mean_S.dtype).tiny).log()
