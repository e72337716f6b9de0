"""No input, however small, may fill the memory."""

import resource
from collections.abc import Iterator

import pytest

_MOST_GROWTH_KIB = 2**20


@pytest.fixture(autouse=True)
def memory_stays_bounded() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < _MOST_GROWTH_KIB, f"the process grew by {grown // 1024} MiB"
