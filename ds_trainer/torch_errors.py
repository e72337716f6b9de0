"""Errors of torch that a user can mend: told in a line, where they would end in pages of its own stack."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ds_trainer.errors import MemoryLimitError, SettingsError, UserError

_HOST_ALLOCATOR = "DefaultCPUAllocator: "
_MOST_SHOWN = 110  # of torch's own words: the watch, too, tells other ranks' errors, in 300 letters


IN_TRAINING = (
    "lower train_micro_batch_size_per_gpu in the engine config and raise gradient_accumulation_steps by as much, or "
    "train a smaller model"
)


@contextmanager
def mendable_errors_told(out_of_memory: str = IN_TRAINING) -> Iterator[None]:
    """Within it, what can be mended raises an error that says how.

    Args:
        out_of_memory: what helps where memory does not suffice.

    Raises:
        MemoryLimitError: the device's memory or the host's does not suffice.
        SettingsError: `torch.compile` failed.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        mendable = _mendable(error, out_of_memory)
        if mendable is None:
            raise
        raise mendable from error


def _mendable(error: Exception, out_of_memory: str) -> UserError | None:
    reason = " ".join(str(error).split())
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or _HOST_ALLOCATOR in reason:
        shown = reason.split(_HOST_ALLOCATOR)[-1][:_MOST_SHOWN]
        return MemoryLimitError(f"out of memory: {shown}; {out_of_memory}")
    compiler = sys.modules.get("torch._dynamo.exc")  # where it was not loaded, nothing was compiled
    if compiler is not None and isinstance(error, compiler.TorchDynamoException):
        return SettingsError(
            f"torch.compile failed ({type(error).__name__}: {reason[:_MOST_SHOWN]}); leave out --compile, "
            f"or the model's own call of it, to train without; TORCH_LOGS=+dynamo shows where it failed"
        )
    return None
