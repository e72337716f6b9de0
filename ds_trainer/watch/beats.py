"""What a rank tells the others about itself about once a second: who it is, where it stands, and that it goes on.

As every beat carries the stack, the last one says where a rank stood that is frozen or dead.
"""

import os
import socket
from dataclasses import dataclass
from typing import Any, Literal

from ds_trainer.distributed import rank
from ds_trainer.watch.whereabouts import Place, Stack, main_stack, place

Kind = Literal["done", "error", "collective", "lost"]


@dataclass(frozen=True)
class Left:
    """The last word of a rank.

    Args:
        kind: "done" in order; "error" of its own; "collective" failed and no other rank was to blame; "lost" another.
        reason: the error, or which rank was lost; empty if it left in order.
    """

    kind: Kind
    reason: str = ""


@dataclass(frozen=True)
class Beat:
    """A sign of life.

    Args:
        stack: of the main thread.
        left: set in the last beat of a rank that ends.
        asks: a collective failed there, and it wants to know soon which rank is to blame.
    """

    rank: int
    host: str
    pid: int
    place: Place
    stack: Stack
    left: Left | None = None
    asks: bool = False


def own_beat(left: Left | None = None, asks: bool = False, stack: Stack | None = None) -> Beat:
    """The beat of this rank, now."""
    frames = main_stack() if stack is None else stack
    return Beat(rank(), socket.gethostname(), os.getpid(), place(), frames, left, asks)


def beat_of(values: dict[str, Any]) -> Beat:
    """The beat that `dataclasses.asdict` made these values of, read back from JSON.

    Raises:
        KeyError, TypeError: they are of something else.
    """
    left = values["left"]
    return Beat(
        **{
            **values,
            "place": Place(**values["place"]),
            "stack": [(str(file), int(line), str(function)) for file, line, function in values["stack"]],
            "left": None if left is None else Left(**left),
        }
    )
