"""What a step frees is there for the next one: counted in page faults, in processes of their own."""

import functools
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc's heap can be told so, and this is another C library"
)

_STEPS = """
{first}
import resource
import torch
from ds_trainer import distributed, heap
{joins}
def step():
    kept = [torch.ones(2**20) for _ in range(40)]  # 4 MiB each, all alive at once as before a backward pass
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print("faults", (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 10)
def resident():
    return next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("RssAnon"))
print("kept", resident())
heap.give_back_freed_memory()
print("left", resident())
print("huge", sum("VmFlags" in line and " hg" in line for line in open("/proc/self/smaps")))
"""


@functools.cache
def _measured(first: str = "", joins: bool = False, **environ: str) -> dict[str, int]:
    code = _STEPS.format(first=first, joins="distributed.join(60.0)" if joins else "")
    usual = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", code], env=usual | environ, capture_output=True, text=True, check=True)
    return {name: int(value) for name, value in re.findall(r"(faults|kept|left|huge) (\d+)", done.stdout)}


def test_a_step_finds_the_memory_that_the_last_one_freed() -> None:
    # Left alone, glibc gives it back unless something happens to lie at the heap's top: 41,000 faults a step.
    assert _measured(joins=True)["faults"] < 100


def test_a_process_that_has_trained_gives_back_what_is_free() -> None:
    measured = _measured(joins=True)
    assert measured["kept"] - measured["left"] > 120, "MiB, of 160"


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this system has no transparent huge pages"
)
def test_the_heap_asks_for_huge_pages() -> None:
    assert _measured(joins=False)["huge"] == 0
    assert _measured(joins=True)["huge"] == 1


def test_where_addresses_are_limited_none_are_reserved() -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (2**40, resource.RLIM_INFINITY))"
    measured = _measured(limit, joins=True)
    assert measured["faults"] < 100
    assert measured["huge"] == 0


def test_whoever_sets_the_variables_of_malloc_is_left_alone() -> None:
    measured = _measured(joins=True, MALLOC_TOP_PAD_="65536")
    assert measured["faults"] > 1000
    assert measured["huge"] == 0
