"""Labs for tests, and what their numbers are compared with."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from launching import run_ranks

from multinode.lab import Lab
from multinode.needs import needs
from multinode.training import Numbers, Training, numbers_in

OneHostNumbers = Callable[[int], Numbers]


@pytest.fixture(scope="session", autouse=True)
def _lab_can_be_made() -> None:
    needs()


@pytest.fixture
def two_hosts() -> Iterator[Lab]:
    """node-0 and node-1, up in half a second."""
    with Lab(2) as lab:
        yield lab


@pytest.fixture
def training(two_hosts: Lab, tmp_path: Path) -> Training:
    """A run on two hosts, to be started."""
    return Training(two_hosts, tmp_path / "work")


@pytest.fixture(scope="session")
def one_host_numbers(tmp_path_factory: pytest.TempPathFactory) -> OneHostNumbers:
    """What so many ranks on one host record, without any launcher."""

    @cache
    def of(world_size: int) -> Numbers:
        runs_dir = tmp_path_factory.mktemp("one-host")
        script, *flags = Training.command(runs_dir)
        run_ranks(script, world_size, flags)
        return numbers_in(runs_dir)

    return of
