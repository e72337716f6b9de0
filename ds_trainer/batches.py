"""Who sees which example, when: pure functions of (seed, epoch), the same examples in each step at any world size.

A step takes the next `micro_batch * accumulation * world_size` examples of the epoch's order. They are cut into
micro-batches dealt to the ranks in turn. The last step of an epoch is shorter, and its micro-batches are filled up with
examples of weight 0: shapes never change, every example counts exactly once, and nothing is left over for the next
epoch.

Axes: B examples.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ds_trainer import distributed
from ds_trainer.errors import TaskError
from ds_trainer.randomness import Draw, mixed, seed_all
from ds_trainer.worker_signals import heed_the_parent_alone

_FETCHING = 1
"""Sets the random numbers of a data set apart from those of dropout in the same micro-step."""

Prepare = Callable[[Any, torch.device, Draw | None], tuple[tuple[Tensor, ...], Any]]


class MicroStep(NamedTuple):
    """What one rank passes at once.

    `indices` has always `micro_batch` entries; only the first `num_real` count. `examples_in_step` is the number of
    examples that count in the whole step, over all ranks.
    """

    indices: list[int]
    num_real: int
    examples_in_step: int
    ends_step: bool
    number: int


class ShardedSampler:
    """The micro-steps of this rank in one epoch.

    Args:
        num_examples: in the split.
        micro_batch: examples that one rank passes at once.
        accumulation: micro-steps in a step.
        seed: of the order; None keeps the order of the split, for validation.
    """

    def __init__(self, num_examples: int, micro_batch: int, accumulation: int = 1, seed: int | None = None):
        self.num_examples = num_examples
        self.micro_batch = micro_batch
        self.accumulation = accumulation
        self.seed = seed
        self.rank = distributed.rank()
        self.world_size = distributed.world_size()
        self.epoch = 0
        self.first_step = 0

    @property
    def passed_at_once(self) -> int:
        """Examples in a micro-step, over all ranks."""
        return self.micro_batch * self.world_size

    @property
    def step_size(self) -> int:
        """Examples in a full step, over all ranks."""
        return self.passed_at_once * self.accumulation

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch, the last and shorter one included."""
        return -(-self.num_examples // self.step_size)

    def set_epoch(self, epoch: int, first_step: int = 0) -> None:
        """Choose the epoch of the next iteration, and the step in it at which to begin."""
        self.epoch = epoch
        self.first_step = first_step

    def __iter__(self) -> Iterator[MicroStep]:
        order = self._order()
        for step in range(self.first_step, self.steps_per_epoch):
            begin = step * self.step_size
            end = min(begin + self.step_size, self.num_examples)
            num_micro_steps = -(-(end - begin) // self.passed_at_once)
            for micro_step in range(num_micro_steps):
                mine = begin + micro_step * self.passed_at_once + self.rank * self.micro_batch
                real = order[mine : mine + self.micro_batch]
                # By different ones: copies of one would spoil the running statistics of batch norms.
                missing = self.micro_batch - len(real)
                filled_up = real + (order * -(-missing // len(order)))[:missing]
                is_last = micro_step + 1 == num_micro_steps
                yield MicroStep(filled_up, len(real), end - begin, is_last, step * self.accumulation + micro_step)

    def seed_of(self, micro_step: MicroStep) -> int:
        """For random numbers that belong to a micro-step of this rank."""
        return mixed(self.seed or 0, self.epoch, micro_step.number, self.rank)

    def _order(self) -> list[int]:
        if self.seed is None:
            return list(range(self.num_examples))
        generator = torch.Generator().manual_seed(mixed(self.seed, self.epoch))
        order: list[int] = torch.randperm(self.num_examples, generator=generator).tolist()
        return order


class Batch(NamedTuple):
    """A micro-batch on the device.

    `weight_B` is 1 for examples that count and 0 for those that fill up. A loss summed over all ranks and micro-steps
    of a step, times `share`, is averaged by the engine over the ranks: the result is the mean over the examples of the
    step. `seed` is for dropout: a function of (seed, epoch, micro-step, rank). `source` and `run_seed` say where the
    batch is from.
    """

    inputs: tuple[Tensor, ...]
    targets: Any
    index_B: Tensor
    weight_B: Tensor
    share: float
    ends_step: bool
    seed: int
    source: MicroStep
    run_seed: int


class _SeededItems(Dataset[Any]):
    """The items of a micro-step, fetched after its seed was set: a data set may draw random numbers of its own, in any
    number of workers, and draws the same again after a resume in mid-epoch."""

    def __init__(self, dataset: Dataset[Any], sampler: ShardedSampler):
        self._dataset = dataset
        self._sampler = sampler

    def __getitems__(self, micro_step: MicroStep) -> list[Any]:
        seed_all(mixed(self._sampler.seed_of(micro_step), _FETCHING))
        if hasattr(self._dataset, "__getitems__"):
            items: list[Any] = self._dataset.__getitems__(micro_step.indices)
            return items
        return [self._dataset[index] for index in micro_step.indices]


def size_of(dataset: Dataset[Any]) -> int:
    """Examples in a data set."""
    return len(dataset)  # type: ignore[arg-type]  # map-style, which torch's Dataset does not say


def name_of(dataset: Dataset[Any], index: int) -> str:
    """What a person calls an example: what the data set's own `name_of` says, if it has one, or its number."""
    name = str(getattr(dataset, "name_of", str)(index))
    return name.encode("utf-8", "backslashreplace").decode()  # the name of a file need not be UTF-8


def _start_method() -> str:
    """How processes that fetch start: by a fork, where Python (from 3.14 on) would ask a fork server.

    That takes no data set that cannot be pickled, such as one of a notebook's cell; sends a copy to each process each
    epoch (of 500 MiB: 2 s, by a fork 0.2); and keeps from torch what killed one of them.
    """
    method = multiprocessing.get_start_method()
    return "fork" if method == "forkserver" else method


class BatchLoader:
    """Prepared batches of one split on this rank's device.

    Args:
        dataset: map-style; its items go through `collate` and then through `prepare`.
        sampler: who sees which example, when.
        prepare: (collated items, device, draw) -> (inputs, targets) on the device; `draw`, made on the CPU, is
            None outside training.
        num_workers: processes that fetch items; 0 fetches in this one.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        sampler: ShardedSampler,
        prepare: Prepare,
        collate: Callable[[list[Any]], Any] = default_collate,
        num_workers: int = 0,
    ):
        self.dataset = dataset
        self.sampler = sampler
        self.prepare = prepare
        self.collate = collate
        self.num_workers = num_workers

    @property
    def num_examples(self) -> int:
        """Examples in the split, over all ranks."""
        return self.sampler.num_examples

    def name_of(self, index: int) -> str:
        """What a person calls an example of the split."""
        return name_of(self.dataset, index)

    def __len__(self) -> int:
        """Micro-batches that are still to come in this epoch, which a continued run may begin in its middle."""
        sampler = self.sampler
        num_micro_steps = -(-self.num_examples // sampler.passed_at_once)
        return max(0, num_micro_steps - sampler.first_step * sampler.accumulation)

    def __iter__(self) -> Iterator[Batch]:
        device = distributed.device()
        micro_steps = list(self.sampler)
        fetched = DataLoader(
            _SeededItems(self.dataset, self.sampler),
            batch_sampler=micro_steps,  # type: ignore[arg-type]  # of lists of indices, says torch
            collate_fn=self.collate,
            num_workers=self.num_workers,
            multiprocessing_context=_start_method() if self.num_workers else None,
            pin_memory=device.type == "cuda",
            worker_init_fn=heed_the_parent_alone,
        )
        for micro_step, items in zip(micro_steps, fetched, strict=True):
            yield self._batch(micro_step, items, device)

    def _batch(self, micro_step: MicroStep, items: Any, device: torch.device) -> Batch:
        sampler = self.sampler
        index_B = torch.tensor(micro_step.indices)
        weight_B = (torch.arange(sampler.micro_batch, device=device) < micro_step.num_real).float()
        draw = Draw.of(sampler.seed, sampler.epoch, index_B) if sampler.seed is not None else None
        inputs, targets = self.prepare(items, device, draw)
        if not isinstance(inputs, tuple):  # a lone tensor would be taken apart, example by example
            raise TaskError(
                f"the task's prepare: gives {type(inputs).__name__} as inputs, expected a tuple of what the model's "
                "forward takes; write (inputs,) if that is one thing, such as a dictionary"
            )
        return Batch(
            inputs,
            targets,
            index_B.to(device, non_blocking=True),
            weight_B,
            source=micro_step,
            run_seed=sampler.seed or 0,
            share=sampler.world_size / micro_step.examples_in_step,
            ends_step=micro_step.ends_step,
            seed=sampler.seed_of(micro_step),
        )
