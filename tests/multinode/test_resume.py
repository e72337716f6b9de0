"""A run continues on other hosts, in another order, on fewer, and where each host has a disk of its own."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from multinode.conftest import OneHostNumbers
from multinode.lab import Lab
from multinode.needs import needs
from multinode.training import Training, numbers_in

pytestmark = [pytest.mark.multinode, pytest.mark.slow, pytest.mark.timeout(300)]


def train_two_epochs(training: Training) -> None:
    """As if the run had been killed then."""
    training.ranks("--num_epochs", "2")
    assert training.end(120) == [0] * len(training.lab.hosts), training.output
    (status,) = (path for place in training.runs_dirs() for path in place.glob("*/status.json"))
    status.write_text('{"status": "running"}')


def test_hosts_in_another_order(training: Training, one_host_numbers: OneHostNumbers) -> None:
    """On a shared disk: another host is the master then, and reads what the first one wrote."""
    needs("pdsh")
    train_two_epochs(training)
    reversed_hostfile = training.work_dir / "hostfile"
    reversed_hostfile.write_text("node-1 slots=1\nnode-0 slots=1\n")
    training.deepspeed("--resume", "auto", hostfile=reversed_hostfile)
    training.succeed()
    assert "node-1: continuing" in training.output
    assert numbers_in(training.runs_dir) == one_host_numbers(2)


def test_from_three_hosts_to_two(tmp_path: Path, one_host_numbers: OneHostNumbers) -> None:
    with Lab(3) as lab:
        training = Training(lab, tmp_path / "work")
        train_two_epochs(training)
        lab.power_off(2)
        training.ranks("--resume", "auto", hosts=lab.hosts[:2])
        training.succeed()
    assert "saved by 3 ranks, continued by 2" in training.output
    numbers, expected = numbers_in(training.runs_dir), one_host_numbers(3)
    assert [each["step"] for each in numbers] == [each["step"] for each in expected], "the global batch is kept"
    losses, expected_losses = (
        [each["val_loss"] for each in some if each["kind"] == "epoch"] for some in (numbers, expected)
    )
    assert losses[:2] == expected_losses[:2]
    assert losses[2] == pytest.approx(expected_losses[2], rel=1e-3), "sums are taken in another order"


@pytest.fixture
def own_disks(tmp_path: Path) -> Iterator[Training]:
    """Two hosts, each with a runs directory of its own, on which two epochs were trained."""
    with Lab(2, own_dirs=[tmp_path / "work/runs"]) as lab:
        training = Training(lab, tmp_path / "work")
        train_two_epochs(training)
        yield training


def test_disks_that_are_not_shared(own_disks: Training, one_host_numbers: OneHostNumbers) -> None:
    """The master alone writes and reads: another host has nothing, and the same one continues exactly."""
    first_dir, second_dir = own_disks.runs_dirs()
    others_first = own_disks.lab.hosts[::-1]
    for resume, expected in (
        ("must", rf"{own_disks.runs_dir}: found no unfinished run of these settings"),
        ("auto", r"--resume auto: found \S+ with epoch_0002\S+ on node-0, and none on node-1"),
    ):
        before = len(own_disks.output)
        own_disks.ranks("--resume", resume, hosts=others_first)
        assert own_disks.end(60) == [2, 2]
        said = own_disks.output[before:]
        assert said.count("error: ") == 1, said
        assert re.search(f"error: {expected}", said), said
        assert list(second_dir.iterdir()) == [], "what was trained is not trained again"
    own_disks.ranks("--resume", "must")
    assert own_disks.end(120) == [0, 0], own_disks.output
    assert numbers_in(first_dir) == one_host_numbers(2)
    assert list(second_dir.iterdir()) == []
