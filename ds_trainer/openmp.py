"""The threads of OpenMP, which torch computes with on a CPU: a rank's part of the cores, and beside other programs.

Threads wait for one another at the end of each operation, and spin on their cores for up to 10 ms before they sleep.
That is fastest while each has a core, and makes a small model up to 35 times slower where one program more keeps a core
busy (docs/everyday.md). GNU's OpenMP spins a thousandth of it while it has more threads than there are cores
(GOMP_SPINCOUNT in the manual of libgomp): idle ones bring it there at any time, and their end brings it back.
"""

import contextlib
import ctypes
import functools
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import joblib
import torch

_LOOK_S, _QUIET_LOOKS = 1.0, 30
_CROWDED, _QUIET = 0.2, 0.05
"""Of the time, for which a thread that has work waits for a core: two threads or ranks on two cores 0.01 to 0.11,
beside a busy loop 0.3."""

_OF_USER = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}


@functools.cache
def share_cores(num_ranks: int) -> None:
    """Have torch compute on this rank's part of the host's cores, once: each rank would take all of them.

    They are as many as torch takes by itself, one thread a core though a core may have two hardware threads, or as a
    program has told it, and no more than a container may use. Left alone where OMP_NUM_THREADS says it.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, min(torch.get_num_threads(), joblib.cpu_count()) // num_ranks))


@contextlib.contextmanager
def short_waits_when_crowded() -> Iterator[None]:
    """Within, OpenMP's threads sleep rather than spin for as long as the calling thread often waits for a core.

    What they compute stays the same to the bit. Left alone: GPUs, other systems and OpenMP libraries, a rank with less
    than half of the cores, and whoever has set this by OpenMP's variables.
    """
    runtime, num_threads = _runtime(), torch.get_num_threads()
    num_others = 0 if runtime is None else max(len(os.sched_getaffinity(0)) - num_threads, 0)
    if runtime is None or num_threads == 1 or num_others > num_threads or _OF_USER & os.environ.keys():
        yield
        return
    ended = threading.Event()
    looks = _fractions_waited(threading.get_native_id(), ended)
    lookout = threading.Thread(target=_look_on, args=(looks, runtime, num_others + 1), name="cores", daemon=True)
    lookout.start()
    try:
        yield
    finally:
        ended.set()
        lookout.join()


def _runtime() -> ctypes.CDLL | None:
    """OpenMP as torch knows it: other packages may have brought one of their own."""
    if sys.platform != "linux" or torch.cuda.is_available():
        return None
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    except OSError:
        return None
    return library if hasattr(library, "GOMP_parallel") else None


def seconds_waited(thread_id: int) -> float:
    """Seconds that a thread of this process has been ready to run and had no core; 0 where the system does not tell.

    The second number of Linux's file, in ns (Documentation/scheduler/sched-stats.rst of its kernel).
    """
    try:
        return int(Path(f"/proc/self/task/{thread_id}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def _fractions_waited(thread_id: int, ended: threading.Event) -> Iterator[float]:
    """Of each second, until `ended`, the part for which the thread waited for a core."""
    waited_s, looked_at = seconds_waited(thread_id), time.monotonic()
    while not ended.wait(_LOOK_S):
        before_s, began = waited_s, looked_at
        waited_s, looked_at = seconds_waited(thread_id), time.monotonic()
        yield (waited_s - before_s) / (looked_at - began)


def _look_on(looks: Iterator[float], runtime: ctypes.CDLL, num_idle: int) -> None:
    for waited in looks:
        if waited > _CROWDED:
            with _idle_threads(runtime, num_idle):
                _pass_until_quiet(looks)


def _pass_until_quiet(looks: Iterator[float]) -> None:
    num_quiet = 0
    for waited in looks:
        num_quiet = num_quiet + 1 if waited < _QUIET else 0
        if num_quiet == _QUIET_LOOKS:
            return


@contextlib.contextmanager
def _idle_threads(runtime: ctypes.CDLL, num_idle: int) -> Iterator[None]:
    """Within, OpenMP has as many threads more. It keeps those of an operation for the next one that the same thread
    computes, until that thread ends."""
    ended = threading.Event()

    def compute_nothing_and_wait() -> None:
        nothing = runtime.omp_get_num_threads
        runtime.GOMP_parallel(nothing, None, ctypes.c_uint(1 + num_idle), ctypes.c_uint(0))
        ended.wait()

    owner = threading.Thread(target=compute_nothing_and_wait, name="idle OpenMP threads", daemon=True)
    owner.start()
    try:
        yield
    finally:
        ended.set()
        owner.join()
