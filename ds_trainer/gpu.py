"""What a GPU needs beside what a CPU does. Where there is none, nothing of it happens."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def same_bits() -> Iterator[None]:
    """Within, cuDNN gives the same bits each time, and computes what is float32 in float32.

    Left alone, its convolutions may add in any order, and convolutions and LSTMs round float32 to TF32; its attention,
    which torch prefers on Hopper, adds in any order in the backward pass (torch 2.13.0).
    """
    was_enabled = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(was_enabled)


def wait() -> None:
    """Wait until all is done that was asked for."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def release_memory() -> None:
    """Give back what is not in use, to other processes and to what looks at how much is free."""
    if torch.cuda.is_initialized():
        with contextlib.suppress(RuntimeError):  # of a device that failed
            torch.cuda.empty_cache()
