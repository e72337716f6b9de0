"""A small training split passed several times in an epoch, so that settings counted in epochs suit it, too."""

from typing import Any

from torch.utils.data import Dataset

from ds_trainer.batches import items_of, name_of


class Passes(Dataset[Any]):
    """A data set that is passed several times.

    Each time its examples have other numbers, and so other random numbers: they are augmented anew.

    Args:
        dataset: map-style, of at least one example.
    """

    def __init__(self, dataset: Dataset[Any], num_passes: int):
        self._dataset = dataset
        self._num_passes = num_passes
        self._num_examples = len(dataset)  # type: ignore[arg-type]  # map-style, which torch's Dataset does not say

    def __len__(self) -> int:
        return self._num_examples * self._num_passes

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return items_of(self._dataset, [index % self._num_examples for index in indices])

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index % self._num_examples]

    def name_of(self, index: int) -> str:
        """What a person calls an example."""
        return name_of(self._dataset, index % self._num_examples)


def passed_enough(dataset: Dataset[Any], min_clips: int) -> Dataset[Any]:
    """The data set, as often as it takes for `min_clips` examples; as it is, if it has as many or none."""
    num_examples = len(dataset)  # type: ignore[arg-type]
    if not 0 < num_examples < min_clips:
        return dataset
    return Passes(dataset, -(-min_clips // num_examples))
