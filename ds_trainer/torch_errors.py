"""Errors of torch that a user can mend: told in a line, where they would end in pages of its own stack."""

import errno
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ds_trainer.errors import MemoryLimitError, NonFiniteLossError, SettingsError, UserError

_HOST_ALLOCATOR = "DefaultCPUAllocator: "
_NO_LOSS_SCALE = "loss scale already at minimum"
_OUT_OF_SHARED_MEMORY = ("unable to allocate shared memory", "killed by signal: Bus error")
_KILLED = "killed by signal: Killed"
_MOST_SHOWN = 110  # of torch's own words: the watch, too, tells other ranks' errors, in 300 letters


IN_TRAINING = (
    "lower train_micro_batch_size_per_gpu in the engine config and raise gradient_accumulation_steps by as much, or "
    "train a smaller model"
)
_NO_THREAD = "Resource temporarily unavailable"
_NO_THREADS = ("can't start new thread", _NO_THREAD, f"[Errno {errno.EAGAIN}] {_NO_THREAD}")
"""As Python, gloo and fork say it, and nothing else."""
_SIXTEEN_BITS = ("BFloat16", "Half", "bfloat16", "float16")
_MISFIT = ("dtype", "scalar type", "not implemented for")
_IN_16_BITS = (
    "The model computes in 16 bits, as the engine config says. Give tensors that its forward pass makes the type of "
    "what they meet (torch.zeros(..., dtype=x.dtype)), compute what knows no 16 bits in float32 (x.float()), or train "
    "with ds_configs/torch_autocast.json, where weights are float32 and operations convert by themselves."
)
_TAKEN_AWAY = (
    "At ZeRO stage 3 the weights of a layer are here only while it runs, and others are empty: read them as "
    "layer.weight, which fetches them, not from parameters(); or train at stage 0, 1 or 2."
)
_NESTED = (
    "The fast path of torch's nn.TransformerEncoder, which validation takes where there is padding, fits neither ZeRO "
    "stage 3 nor torch_autocast on a CPU: build the encoder with enable_nested_tensor=False."
)
_UNSCORED = (
    "An example is of a class that the model has no score for. If classes are counted from 1, number them from 0; else "
    "give the model more outputs, or look for a wrong label in the data."
)


@contextmanager
def mendable_errors_told(out_of_memory: str = IN_TRAINING) -> Iterator[None]:
    """Within it, what can be mended raises an error that says how; a mistake of the model gets a note.

    Args:
        out_of_memory: what helps where memory does not suffice.

    Raises:
        MemoryLimitError: the device's memory or the host's does not suffice.
        NonFiniteLossError: fp16 finds no scale of the loss at which gradients stay finite.
        SettingsError: `torch.compile` failed, or no further thread may be started.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        mendable = _mendable(error, out_of_memory)
        if mendable is None:
            note = _note_on(error, " ".join(str(error).split()))
            if note is not None and note not in getattr(error, "__notes__", ()):
                error.add_note(note)
            raise
        raise mendable from error


def _note_on(error: Exception, reason: str) -> str | None:
    """What to do where tensors of two precisions met, or one of 16 bits and an operation that knows none; where padded
    sequences are no plain tensors; where a class has no score; or where a weight was read that ZeRO-3 has taken away.
    """
    is_misfit = any(word in reason for word in _MISFIT)
    if "NestedTensor" in reason or (is_misfit and _is_of_fast_path(error)):
        return _NESTED
    if isinstance(error, IndexError) and reason.startswith("Target ") and "out of bounds" in reason:
        return _UNSCORED
    if is_misfit and any(word in reason for word in _SIXTEEN_BITS):
        return _IN_16_BITS
    return _TAKEN_AWAY if "returned an invalid gradient" in reason and "[0]" in reason else None


def _is_of_fast_path(error: Exception) -> bool:
    """Its operation alone is called by the layer itself: all others by layers within that one (torch 2.13)."""
    *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
    return innermost.f_code is torch.nn.TransformerEncoderLayer.forward.__code__


def _mendable(error: Exception, out_of_memory: str) -> UserError | None:
    reason = " ".join(f"{error} {error.__cause__ or ''}".split())  # torch says of a dead worker there what ended it
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or _HOST_ALLOCATOR in reason:
        shown = reason.split(_HOST_ALLOCATOR)[-1][:_MOST_SHOWN]
        return MemoryLimitError(f"out of memory: {shown}; {out_of_memory}")
    if (short_of_memory := _fetching(reason)) is not None:
        return MemoryLimitError(f"{short_of_memory}, or set the task's num_workers lower, 0 for none")
    if reason in _NO_THREADS:
        return SettingsError(
            f"no further thread or process can be started ({reason}), expected some for each rank; raise the limit "
            "(ulimit -u; docker run --pids-limit), or export OMP_NUM_THREADS=1"
        )
    if _NO_LOSS_SCALE in reason:  # of DeepSpeed, which gives it no type of its own (0.19.8)
        return NonFiniteLossError(
            "fp16: gradients overflow even at the smallest loss scale, expected finite ones at some scale; train "
            "with bf16.json or fp32.json, or look into bad_batches/ of the run for examples with extreme values"
        )
    compiler = sys.modules.get("torch._dynamo.exc")  # where it was not loaded, nothing was compiled
    if compiler is not None and isinstance(error, compiler.TorchDynamoException):
        return SettingsError(
            f"torch.compile failed ({type(error).__name__}: {reason[:_MOST_SHOWN]}); leave out --compile, "
            f"or the model's own call of it, to train without; TORCH_LOGS=+dynamo shows where it failed"
        )
    return None


def _fetching(reason: str) -> str | None:
    """What the processes that fetch data lacked, and half of the remedy."""
    if any(words in reason for words in _OUT_OF_SHARED_MEMORY):
        return (
            "out of shared memory (/dev/shm), by which processes that fetch data (num_workers) hand it over; give the "
            "container more (docker run --shm-size=2g)"
        )
    if _KILLED in reason:
        return (
            "a process that fetches data (num_workers) was killed by SIGKILL, as the kernel does where memory is "
            "short; ask for more memory (Slurm: --mem)"
        )
    return None
