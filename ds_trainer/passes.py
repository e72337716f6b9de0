"""A small training split passed several times in an epoch, so that settings counted in epochs suit it, too."""

from typing import Any

from torch.utils.data import Dataset, Subset

from ds_trainer.batches import name_of, size_of


class Passes(Subset[Any]):
    """Examples of a data set, each maybe several times.

    Each time an example has another number, and so other random numbers: it is augmented anew.
    """

    def name_of(self, index: int) -> str:
        """What a person calls an example."""
        return name_of(self.dataset, self.indices[index])


def passed_enough(dataset: Dataset[Any], min_clips: int) -> Dataset[Any]:
    """The data set, as often as it takes for `min_clips` examples; as it is, if it has as many or none."""
    num_examples = size_of(dataset)
    if not 0 < num_examples < min_clips:
        return dataset
    num_passes = -(-min_clips // num_examples)
    return Passes(dataset, [*range(num_examples)] * num_passes)
