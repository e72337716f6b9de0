"""What a GPU needs beside what a CPU does. Where there is none, nothing of it happens."""

import contextlib
import os
from collections.abc import Iterator

import torch

_IN_ONE_ORDER = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NCCL_ALGO": "^NVLS,NVLSTree"}
"""Makes cuDNN's LSTMs, and sums over the ranks of an NVSwitch, add in the same order each time: what torch asks for,
and what it sets, where only deterministic algorithms may run. The first is its own choice on Hopper (2.13.0)."""


@contextlib.contextmanager
def same_bits() -> Iterator[None]:
    """Within, a GPU gives the same bits each time, and cuDNN computes what is float32 in float32.

    Left alone, cuDNN's convolutions may add in any order, and convolutions and LSTMs round float32 to TF32; its
    attention, which torch prefers on Hopper, adds in any order in the backward pass (torch 2.13.0). To be entered
    before ranks meet; environment variables that a user has set stay as they are.
    """
    for name, value in _IN_ONE_ORDER.items():
        os.environ.setdefault(name, value)
    cudnn = torch.backends.cudnn
    before = cudnn.enabled, cudnn.benchmark, cudnn.deterministic, torch.backends.cuda.cudnn_sdp_enabled()
    _set_cudnn(True, False, True, False)
    try:
        with _float32_in_float32():
            yield
    finally:
        _set_cudnn(*before)


@contextlib.contextmanager
def without_cudnn() -> Iterator[None]:
    """Within, torch's own kernels do: cuDNN's LSTMs have no backward pass in evaluation mode."""
    cudnn = torch.backends.cudnn
    before = cudnn.enabled
    cudnn.enabled = False
    try:
        yield
    finally:
        cudnn.enabled = before


def _set_cudnn(is_enabled: bool, tries_algorithms: bool, is_deterministic: bool, has_attention: bool) -> None:
    cudnn = torch.backends.cudnn
    cudnn.enabled, cudnn.benchmark, cudnn.deterministic = is_enabled, tries_algorithms, is_deterministic
    torch.backends.cuda.enable_cudnn_sdp(has_attention)


@contextlib.contextmanager
def _float32_in_float32() -> Iterator[None]:
    """Within, cuDNN does not round to TF32, in whichever of torch's two ways a process has spoken of that before.

    The older, `allow_tf32`, does nothing where the newer has been used, and cannot be read where both disagree; nested
    `cudnn.flags` read it.
    """
    cudnn, older = torch.backends.cudnn, None
    newer = [getattr(cudnn, name) for name in ("conv", "rnn") if hasattr(cudnn, name)]  # since torch 2.9
    before = [each.fp32_precision for each in newer]
    with contextlib.suppress(RuntimeError):
        older = cudnn.allow_tf32
    cudnn.allow_tf32 = False
    for each in newer:
        each.fp32_precision = "ieee"
    try:
        yield
    finally:
        if older is not None:
            cudnn.allow_tf32 = older
        for each, precision in zip(newer, before, strict=True):
            each.fp32_precision = precision


def wait() -> None:
    """Wait until all is done that was asked for."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def release_memory() -> None:
    """Give back what is not in use, to other processes and to what looks at how much is free."""
    if torch.cuda.is_initialized():
        with contextlib.suppress(RuntimeError):  # of a device that failed
            torch.cuda.empty_cache()
