"""The samplers of the ranks of a job, built one after another: a sampler reads its rank from the environment."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from ds_trainer.batches import ShardedSampler

shapes = st.tuples(st.integers(1, 40), st.integers(1, 4), st.integers(1, 5), st.integers(1, 3))
"""(examples, world size, micro-batch, accumulation)."""

thorough = settings(max_examples=200, deadline=None)


def ranks(
    num_examples: int, world_size: int, micro_batch: int, accumulation: int = 1, seed: int | None = 0
) -> list[ShardedSampler]:
    """The samplers of all ranks of a job."""
    samplers = []
    for rank in range(world_size):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RANK", str(rank))
            patch.setenv("WORLD_SIZE", str(world_size))
            samplers.append(ShardedSampler(num_examples, micro_batch, accumulation, seed))
    return samplers
