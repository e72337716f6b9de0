"""What follows from a layout alone, on the device that computes with it.

It is brought there once. A list in an index, or a tensor made of one, is copied anew each time it is used, and such a
copy waits until a GPU has done all that it was asked for before.
"""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def kept_on_device(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`make`, whose results are remembered by its arguments, of which the device is one; nobody may change them."""
    kept: dict[tuple[object, ...], Tensor] = {}

    @functools.wraps(make)
    def get(*arguments: object) -> Tensor:
        if arguments in kept:
            return kept[arguments]
        if torch.compiler.is_compiling():  # what is made here belongs to the graph, and is no tensor to keep
            return make(*arguments)
        with torch.inference_mode(False):  # else it could serve inference only
            kept[arguments] = make(*arguments)
        return kept[arguments]

    return get


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`function`, compiled for fixed shapes into a graph that is given what is kept.

    It runs once as it is, so that this is known before: a graph would copy to the device anew whatever it makes itself.
    """
    graph = torch.compile(function, dynamic=False)
    is_known = False

    @functools.wraps(function)
    def call(*arguments: object) -> Tensor:
        nonlocal is_known
        if not is_known:
            function(*arguments)
            is_known = True
        return graph(*arguments)

    return call


@kept_on_device
def index_on(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """int64[N] on the device."""
    return torch.tensor(numbers, device=device)


def picked(keypoints: Sequence[int], device: torch.device) -> slice | Tensor:
    """What picks keypoints from an axis of a tensor there: a slice, which copies nothing, where they are neighbours."""
    first, last = keypoints[0], keypoints[-1]
    if list(keypoints) == list(range(first, last + 1)):
        return slice(first, last + 1)
    return index_on(tuple(keypoints), device)
