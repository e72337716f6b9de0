"""What DeepSpeed refuses no earlier than when it builds an engine: a mistake in the engine config, told as one."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from ds_trainer.errors import SettingsError
from ds_trainer.problems import reason_of
from ds_trainer.torch_errors import mendable_errors_told

# Not what is derived from them: other ranks that are gone, and devices that fail, have types of their own.
_TYPES = (AssertionError, ValueError, RuntimeError, Exception)


@contextmanager
def refusals_told(source: str) -> Iterator[None]:
    """Within it, an engine is built.

    Args:
        source: the engine config, as the message names it.

    Raises:
        SettingsError: DeepSpeed refuses it.
        MemoryLimitError: the device's memory or the host's does not suffice.
    """
    try:
        with mendable_errors_told():
            yield
    except Exception as error:
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
