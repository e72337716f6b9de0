"""The heap of a process that trains on a CPU: what a step frees, the next one finds there.

glibc gives the top of its heap back whenever much of it is free, which is after each step, and Linux then clears and
maps each page anew: a step of the recipes spends up to a third of its time on that (docs/speed.md). A process that
trains needs as much again in the next step.
"""

import ctypes
import functools
import mmap
import os
import resource
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of malloc.h
_NEVER = -1
_LARGEST = 2**25
"""Bytes above which a block is no part of the heap, and goes back when freed: as many as glibc comes to by itself. With
more, batches of widely varying sizes leave holes that nothing fits: 2.5 GiB where 1 is needed, with 256 MiB."""

_IN_HUGE_PAGES, _GROWTH = 2**30, 2**26

_OF_USER = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES"}

_LIMITS_ON_ADDRESSES = resource.RLIMIT_AS, resource.RLIMIT_DATA


@functools.cache
def keep_freed_memory() -> None:
    """Have this process keep what it frees, 1 GiB of it in huge pages where the system has them, and say nothing.

    Left alone: other systems and C libraries, and whoever has set this for glibc by its variables.
    """
    libc = _glibc()
    if libc is None or _OF_USER & os.environ.keys():
        return
    # Trimming alone would also end glibc's own choice of the other, at 128 KiB.
    if libc.mallopt(_MMAP_THRESHOLD, _LARGEST):
        libc.mallopt(_TRIM_THRESHOLD, _NEVER)
        if all(resource.getrlimit(limit)[0] == resource.RLIM_INFINITY for limit in _LIMITS_ON_ADDRESSES):
            _grow_in_huge_pages(libc)


def give_back_freed_memory() -> None:
    """Give the system what is free now: this process has trained, and may go on with something else."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(ctypes.c_size_t(0))


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") else None


def _grow_in_huge_pages(libc: ctypes.CDLL) -> None:
    """Reserve addresses, no memory, in one piece, and ask for huge pages there: later growth could not be asked for."""
    libc.sbrk.restype = libc.malloc.restype = ctypes.c_void_p
    give_back_freed_memory()  # or what is free already would be enough
    begin = libc.sbrk(0)
    libc.mallopt(_TOP_PAD, _IN_HUGE_PAGES)
    libc.free(ctypes.c_void_p(libc.malloc(ctypes.c_size_t(_LARGEST // 2))))
    libc.mallopt(_TOP_PAD, _GROWTH)
    begin += -begin % mmap.PAGESIZE
    grown = libc.sbrk(0) - begin
    if grown > 0:
        libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(grown), mmap.MADV_HUGEPAGE)
