"""OpenMP's threads spin on cores that are theirs alone, and sleep while others use them."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from ds_trainer import openmp
from ds_trainer.openmp import seconds_waited, share_cores, short_waits_when_crowded

pytestmark = [
    pytest.mark.skipif(openmp._runtime() is None, reason="torch computes without GNU's OpenMP, or on a GPU"),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: no threads that wait for one another"),
]


@pytest.fixture(autouse=True)
def all_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    for name in openmp._OF_USER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(openmp, "_LOOK_S", 0.05)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("by_itself", "usable", "num_ranks", "expected"),
    [(4, 8, 1, 4), (4, 8, 2, 2), (8, 3, 1, 3), (8, 3, 2, 1), (2, 8, 4, 1), (2, 8, 1, 2)],
)
def test_ranks_share_the_cores_that_torch_would_take_and_a_container_has(
    monkeypatch: pytest.MonkeyPatch, by_itself: int, usable: int, num_ranks: int, expected: int
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("joblib.cpu_count", lambda: usable)
    torch.set_num_threads(by_itself)
    share_cores.__wrapped__(num_ranks)
    assert torch.get_num_threads() == expected


def test_threads_that_a_user_has_set_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    torch.set_num_threads(3)
    share_cores.__wrapped__(2)
    assert torch.get_num_threads() == 3


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the fraction of its time for which the kernel says that a thread waited for a core."""
    told = {"fraction": 0.0, "seconds": 0.0, "at": time.monotonic()}

    def waited(thread_id: int) -> float:
        now = time.monotonic()
        told["seconds"] += told["fraction"] * (now - told["at"])
        told["at"] = now
        return told["seconds"]

    monkeypatch.setattr(openmp, "seconds_waited", waited)
    return lambda fraction: told.update(fraction=fraction)


def seconds_spun(num_operations: int = 20) -> float:
    """Processor seconds a small operation takes on all cores, its threads' waiting for the next one included."""
    numbers = torch.zeros(2**17)
    numbers.add_(1)
    time.sleep(0.1)
    began = time.process_time()
    for _ in range(num_operations):
        numbers.add_(1)
        time.sleep(0.012)
    return (time.process_time() - began) / num_operations


def num_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def reached(is_so: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.05)
    return is_so()


def test_threads_sleep_while_others_use_the_cores(crowd: Callable[[float], None]) -> None:
    alone_s, num_alone = seconds_spun(), num_threads()
    with short_waits_when_crowded():
        assert num_threads() == num_alone + 1  # who looks on
        crowd(0.5)
        assert reached(lambda: num_threads() == num_alone + 3)  # an idle one, and whose it is
        crowded_s = seconds_spun()
        crowd(0.0)
        assert reached(lambda: num_threads() == num_alone + 1)
        alone_again_s = seconds_spun()
    assert reached(lambda: num_threads() == num_alone)
    assert crowded_s < 0.3 * min(alone_s, alone_again_s)


@pytest.mark.parametrize("fraction", [0.11, 0.0])
def test_cores_of_its_own_change_nothing(crowd: Callable[[float], None], fraction: float) -> None:
    torch.zeros(2**17).add_(1)
    num_alone = num_threads()
    crowd(fraction)
    with short_waits_when_crowded():
        time.sleep(0.5)
        assert num_threads() == num_alone + 1


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_what_a_user_has_set_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1000")
    before = num_threads()
    with short_waits_when_crowded():
        assert num_threads() == before


@pytest.mark.parametrize(("num_cores", "num_more"), [(4, 5), (5, 0)])
def test_cores_that_others_have_are_counted(
    monkeypatch: pytest.MonkeyPatch, crowd: Callable[[float], None], num_cores: int, num_more: int
) -> None:
    """Idle threads fill them, and one is too many; a rank with less than half of the cores is left alone."""
    torch.set_num_threads(2)
    torch.zeros(2**17).add_(1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(num_cores)))
    num_alone = num_threads()
    crowd(0.5)
    with short_waits_when_crowded():
        assert reached(
            lambda: num_threads() == num_alone + num_more
        )  # who looks on, three idle ones, and whose they are
        time.sleep(0.1)
        assert num_threads() == num_alone + num_more


def test_crowd_is_gone_after_thirty_quiet_looks_in_a_row() -> None:
    looks = iter([0.04] * 29 + [0.06] + [0.04] * 30 + [0.7])
    openmp._pass_until_quiet(looks)
    assert list(looks) == [0.7]


def test_one_thread_waits_for_no_other() -> None:
    torch.set_num_threads(1)
    before = num_threads()
    with short_waits_when_crowded():
        assert num_threads() == before


def test_it_ends_with_an_error(crowd: Callable[[float], None]) -> None:
    torch.zeros(2**17).add_(1)
    num_alone = num_threads()
    crowd(0.9)
    with contextlib.suppress(KeyError), short_waits_when_crowded():
        assert reached(lambda: num_threads() == num_alone + 3)
        raise KeyError
    assert reached(lambda: num_threads() == num_alone)


def test_a_busy_loop_crowds_a_core() -> None:
    torch.zeros(2**17).add_(1)
    num_alone, allowed = num_threads(), os.sched_getaffinity(0)
    with short_waits_when_crowded():
        os.sched_setaffinity(0, {min(allowed)})
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            deadline = time.monotonic() + 30
            while num_threads() < num_alone + 3 and time.monotonic() < deadline:
                sum(range(10_000))
        finally:
            other.kill()
            other.wait()
            os.sched_setaffinity(0, allowed)
        assert num_threads() == num_alone + 3


@pytest.mark.parametrize(
    ("text", "expected"), [(None, 0.0), ("", 0.0), ("12", 0.0), ("7000000000 2500000000 9\n", 2.5)]
)
def test_waiting_is_in_seconds_and_none_where_the_kernel_does_not_tell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, expected: float
) -> None:
    if text is not None:
        (tmp_path / "schedstat").write_text(text)
    monkeypatch.setattr(openmp, "Path", lambda path: tmp_path / "schedstat")
    assert seconds_waited(1) == expected
