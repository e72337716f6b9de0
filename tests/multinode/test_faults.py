"""Whatever fails on one host, the run ends on all of them in time, not with status 0, and says whose fault it was."""

import re
import time
from signal import SIGINT

import pytest

from ds_trainer.watch.watch import EXIT_RANK_LOST
from multinode.needs import needs
from multinode.raising import MESSAGE
from multinode.training import Training, ranks_on

pytestmark = [pytest.mark.multinode, pytest.mark.slow, pytest.mark.timeout(240)]

TIMEOUT_S = 5
A_FEW_S = 10
ENDLESS = ["--num_epochs", "9999", "--num_points", "3000", "--stall_timeout_s", str(TIMEOUT_S)]


def start_over_ssh(training: Training, *flags: str) -> None:
    needs("pdsh")
    training.deepspeed(*ENDLESS, *flags)
    training.wait_for_step(20)


def start_ranks(training: Training, *flags: str) -> None:
    training.ranks(*ENDLESS, *flags)
    training.wait_for_step(20)


def assert_ends_in_time(training: Training, seconds: float = TIMEOUT_S + A_FEW_S) -> list[int]:
    """The statuses of what was started, none of them 0; no rank is left on any host."""
    of_ranks_s, statuses = training.ranks_end(seconds), training.end(seconds)
    print(f"ranks ended after {of_ranks_s:.1f} s, launchers with {statuses}")
    assert 0 not in statuses, training.output
    return statuses


def assert_named(training: Training, what: str) -> None:
    """Somebody says so, and status.json does."""
    assert re.search(f"error: {what}", training.output), training.output[-8000:]
    status = training.status()
    assert status["status"] == "failed"
    assert re.search(what, status["reason"]), status


def test_killed_rank(training: Training) -> None:
    start_over_ssh(training, "--stall_timeout_s", "120")
    training.kill_rank(1)
    assert_ends_in_time(training)
    assert_named(training, r"rank 1 on node-1 \(pid \d+\) is gone")


def test_exception_on_one_rank(training: Training) -> None:
    training.ranks(*ENDLESS, "--task", "multinode.raising:RaisingTask")
    assert training.end(90) == [EXIT_RANK_LOST, 1]
    assert f"ZeroDivisionError: {MESSAGE}" in training.output
    assert_named(training, rf"rank 1 on node-1 \(pid \d+\) ended with ZeroDivisionError: {MESSAGE}")


def test_killed_launcher_of_a_host(training: Training) -> None:
    start_over_ssh(training)
    training.lab.hosts[1].kill("deepspeed.launcher.launch", "-u -m")
    assert_ends_in_time(training)
    status = training.status()
    assert (status["status"], status["reason"]) == ("stopped", "the end of its launcher on node-1"), "at a resume point"


def test_ctrl_c(training: Training) -> None:
    """A terminal sends it to the launcher and to pdsh, which end the ranks on all hosts; these save before."""
    start_over_ssh(training)
    first = training.lab.hosts[0]
    for words in (["bin/deepspeed", "--hostfile"], ["pdsh -S"]):
        first.kill(*words, number=SIGINT)
    assert_ends_in_time(training, 40)
    assert training.status()["status"] == "stopped"


def test_cut_cable(training: Training) -> None:
    start_over_ssh(training)
    training.lab.cut(1)
    assert_ends_in_time(training)
    assert_named(training, rf"rank 1 on node-1 \(pid \d+\) has not been heard of for ({TIMEOUT_S}|{TIMEOUT_S + 1}) s")


def test_cable_that_comes_back_in_time(training: Training) -> None:
    start_ranks(training, "--stall_timeout_s", "40")
    training.lab.cut(1)
    time.sleep(5)
    assert all(ranks_on(host) for host in training.lab.hosts)
    step = training.last_step()
    training.lab.mend(1)
    training.wait_for_step(step + 50)
    assert "heard" not in training.output


def test_black_hole(training: Training) -> None:
    start_ranks(training)
    training.lab.black_hole(1)
    assert assert_ends_in_time(training) == [EXIT_RANK_LOST] * 2
    assert_named(training, rf"rank 1 on node-1 \(pid \d+\) has not been heard of for ({TIMEOUT_S}|{TIMEOUT_S + 1}) s")
    assert re.search(r"error: rank 0 on node-0 \(pid \d+\) has not been heard of", training.output), "said on node-1"


def test_host_without_power(training: Training) -> None:
    start_over_ssh(training)
    training.lab.power_off(1)
    assert_ends_in_time(training)
    assert_named(training, rf"rank 1 on node-1 \(pid \d+\) has not been heard of for ({TIMEOUT_S}|{TIMEOUT_S + 1}) s")


def test_host_of_the_master_without_power(training: Training) -> None:
    start_ranks(training)
    training.lab.power_off(0)
    assert assert_ends_in_time(training)[1] == EXIT_RANK_LOST
    assert_named(training, rf"rank 0 on node-0 \(pid \d+\) has not been heard of for ({TIMEOUT_S}|{TIMEOUT_S + 1}) s")


def test_host_that_is_missing_at_the_start(training: Training) -> None:
    needs("pdsh")
    training.lab.power_off(1)
    training.deepspeed(*ENDLESS, "--start_timeout_s", str(TIMEOUT_S))
    training.wait_for(lambda: bool(ranks_on(training.lab.hosts[0])), 60, "start of rank 0")
    assert_ends_in_time(training, TIMEOUT_S + 2 * A_FEW_S)
    assert f"error: rank 1 on node-1 has not come within {TIMEOUT_S} s" in training.output


def test_host_of_the_master_that_is_missing_at_the_start(training: Training) -> None:
    training.lab.power_off(0)
    training.ranks(*ENDLESS, "--start_timeout_s", str(TIMEOUT_S))
    assert training.end(TIMEOUT_S + 60) == [2]
    address = training.lab.hosts[0].address
    assert f"error: rank 1 on node-1 found no rank 0 at {address}:29500 within {TIMEOUT_S} s" in training.output
    assert "c10d" not in training.output, "torch's own noise"
