"""A task whose data fails on rank 1 in the middle of training."""

import os
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from ds_trainer.tasks.toy.task import ToyTask

MESSAGE = "clip 17 is broken"
_GOOD_FETCHES = 500


class BreakingSet(Dataset[tuple[Tensor, ...]]):
    """As the set it is made of, until rank 1 has fetched many items."""

    def __init__(self, items: Any):
        self._items = items
        self._num_fetched = 0

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        self._num_fetched += 1
        if os.environ["RANK"] == "1" and self._num_fetched > _GOOD_FETCHES:
            raise ZeroDivisionError(MESSAGE)
        item: tuple[Tensor, ...] = self._items[number]
        return item


class RaisingTask(ToyTask):
    """The toy task with such a training set."""

    def __init__(self, settings: Any):
        super().__init__(settings)
        self.train_set = BreakingSet(self.train_set)
