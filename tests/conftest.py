"""What all tests share: no process group, no rank variables and no log leak from one test into the next."""

import ctypes
import logging
import os
import resource
import signal
import tempfile
from collections import defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from browsing import CHROMIUM
from filelock import FileLock
from hypothesis import settings
from left_processes import end_left, started_processes

from ds_trainer.progress import log

settings.register_profile("shared machine", deadline=None)  # how long an example takes says nothing there
settings.load_profile("shared machine")

SHARED_DIR = Path(__file__).parents[1].parent / "shared"


def pytest_configure(config: pytest.Config) -> None:
    """A GPU is seen only where its tests are asked for: all others are of a CPU, and start more ranks than one has."""
    if not config.option.markexpr.startswith("gpu"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that may take longest begin, lest a worker is left with one of them alone."""
    seconds: defaultdict[Path, float] = defaultdict(float)
    for item in items:
        limit = item.get_closest_marker("timeout")
        if item.get_closest_marker("slow"):
            seconds[item.path] += limit.args[0] if limit else float(item.config.getini("timeout"))
    items.sort(key=lambda item: -seconds[item.path])


has_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[has_failed] = report.failed
    return report


@pytest.fixture(autouse=True)
def no_process_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    with started_processes() as started:
        yield
    if request.node.stash.get(has_failed, True):
        end_left(started)


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    environment = dict(os.environ)
    threads = torch.get_num_threads()
    yield
    assert not torch.distributed.is_initialized(), "the test left a process group behind"
    assert torch.get_num_threads() == threads, "the test changed the number of threads"
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(autouse=True)
def unused_log() -> None:
    """The log as it is before `start_log`: pytest (9.2) hears a logger twice that begins to propagate in a test."""
    log.handlers.clear()
    log.setLevel(logging.NOTSET)
    log.propagate = True


@pytest.fixture
def port_of_launchers() -> Iterator[None]:
    """Held by one test at a time, whichever worker runs it."""
    with FileLock(Path(tempfile.gettempdir()) / "ds_trainer-tests-port-29500.lock"):
        yield


@pytest.fixture(params=["raised", "no"])
def rights_hold(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For root, too: this thread goes without the capabilities to read, write and search whatever it likes.

    Where a path may not be looked at, pathlib raises an error up to Python 3.13, and answers "no" from 3.14 on.
    """
    if request.param == "no":
        for name in ("exists", "is_file", "is_dir", "is_symlink"):
            answer = getattr(os.path, name.replace("_", "").replace("symlink", "link"))
            monkeypatch.setattr(Path, name, lambda path, answer=answer: answer(path))
    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522), (ctypes.c_uint32 * 6)()  # linux/capability.h
    assert libc.capget(header, sets) == 0
    effective = sets[0]
    sets[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, sets) == 0
    yield
    sets[0] = effective
    assert libc.capset(header, sets) == 0


@pytest.fixture(scope="session")
def isl_kinect30() -> Path:
    """The benchmark set, which is no part of the project."""
    path = SHARED_DIR / "data" / "isl-kinect30" / "clips.npz"
    if not path.exists():
        pytest.skip("isl-kinect30 is not here: it is no part of the project")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    if CHROMIUM is None:
        pytest.skip("needs chromium, which .ci/run installs")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else [],
        )  # fmt: skip
        yield chromium
        chromium.close()


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Files of this process may not grow beyond 100 kB, which fails like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)
