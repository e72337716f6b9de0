"""Mistakes in an engine config that show no earlier than when the engine is built, of a model."""

import contextlib
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from deepspeed.ops.op_builder.builder import MissingCUDAException
from deepspeed.runtime.keep_in_fp32 import buffers_to_keep_in_fp32, keep_in_fp32_pattern
from torch import nn

from ds_trainer.errors import SettingsError
from ds_trainer.problems import nearest_name, reason_of, shown
from ds_trainer.torch_errors import mendable_errors_told

# Not what is derived from them: other ranks that are gone, and devices that fail, have types of their own.
_TYPES = (AssertionError, ValueError, RuntimeError, Exception)


@contextmanager
def refusals_told(source: str) -> Iterator[None]:
    """Within it, an engine is built.

    Args:
        source: the engine config, as the message names it.

    Raises:
        SettingsError: DeepSpeed refuses it, or would have to compile for it what cannot be compiled here.
        MemoryLimitError: the device's memory or the host's does not suffice.
    """
    try:
        with mendable_errors_told():
            yield
    except Exception as error:
        if isinstance(error, MissingCUDAException) or "CUDA_HOME" in str(error):
            raise SettingsError(
                f"{source}: DeepSpeed would compile an operation for the GPU with nvcc, which is not here "
                f"({reason_of(error)}); install the CUDA toolkit, or remove the key that asks for it, such as "
                '"torch_adam": false or zero_quantized_weights'
            ) from error
        if type(error) not in _TYPES or not str(error) or not _is_of_deepspeed(error):
            raise
        raise SettingsError(
            f"{source}: refused by DeepSpeed: {reason_of(error)}; change or remove the key that this is about"
        ) from error


def _is_of_deepspeed(error: Exception) -> bool:
    """Whether DeepSpeed itself raised it: not the model, and not torch, through which ranks hear of one another."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    module: str = frame.f_globals.get("__name__", "")
    return module.partition(".")[0] == "deepspeed"


def refuse_unmatched(model: nn.Module, config: Mapping[str, Any], source: str) -> None:
    """Look whether the model has the buffers that are to stay float32.

    Args:
        source: the engine config, as the message names it.

    Raises:
        SettingsError: a pattern is in the name of none.
    """
    names = [name for name, buffer in model.named_buffers() if buffer.is_floating_point()]
    for pattern in config.get("data_types", {}).get("keep_in_fp32_modules") or ():
        with contextlib.suppress(re.error):
            if buffers_to_keep_in_fp32(model, keep_in_fp32_pattern(model, [pattern], torch.bfloat16)):
                continue
        raise SettingsError(
            f"{source}: data_types.keep_in_fp32_modules: found {shown(pattern)}, expected a part of the name of a "
            f"buffer (not of a weight); {nearest_name(pattern, names) if names else 'there is none; remove it'}"
        )
