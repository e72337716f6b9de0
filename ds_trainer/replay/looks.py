"""Looks at tensors: are their numbers finite, how far do they reach, and in which clips not."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Look(NamedTuple):
    """What was seen of a tensor.

    `smallest` and `largest` are absolute values of its finite numbers. `bad_clips` are the rows with a number that is
    not finite, or None if the first axis is not that of clips. `is_mask` says of a tensor of 0 and -inf that these are
    meant: they hide something from a softmax.
    """

    shape: tuple[int, ...]
    num_values: int
    num_nan: int
    num_infinite: int
    smallest: float
    largest: float
    bad_clips: frozenset[int] | None
    is_mask: bool

    @property
    def num_bad(self) -> int:
        """Numbers that are not finite."""
        return self.num_nan + self.num_infinite

    @property
    def is_bad(self) -> bool:
        """Whether it holds NaN, or infinity that nobody meant."""
        return self.num_bad > 0 and not self.is_mask


def look_at(tensor: Tensor, num_clips: int) -> Look:
    """Look at a floating-point tensor of at least one number. Synchronises."""
    values = tensor.detach()
    is_finite, magnitude = torch.isfinite(values), values.abs()
    seen = (
        values.isnan().sum(),
        values.isinf().sum(),
        magnitude.where(is_finite, math.inf).min(),
        magnitude.where(is_finite, 0.0).max(),
    )
    num_nan, num_infinite, smallest, largest = torch.stack([number.double() for number in seen]).tolist()
    is_mask = smallest == largest == 0 and bool((is_finite | (values == -math.inf)).all())
    bad_clips = None
    if values.dim() and len(values) == num_clips:
        bad_clips = frozenset((~is_finite).reshape(num_clips, -1).any(1).nonzero().flatten().tolist())
    shape = tuple(values.shape)
    return Look(shape, values.numel(), int(num_nan), int(num_infinite), smallest, largest, bad_clips, is_mask)


def looks_at(value: Any, num_clips: int) -> list[Look]:
    """A look at each floating-point tensor in `value`, however nested, and at each float that is not finite."""
    if isinstance(value, Tensor):
        is_numbers = (value.is_floating_point() or value.is_complex()) and value.layout == torch.strided
        return [look_at(value, num_clips)] if is_numbers and value.numel() else []
    if isinstance(value, float) and not math.isfinite(value):
        return [Look((), 1, int(math.isnan(value)), int(math.isinf(value)), math.inf, 0.0, None, is_mask=False)]
    return [look for part in parts_of(value) for look in looks_at(part, num_clips)]


def parts_of(value: Any) -> Iterator[Any]:
    """What a tuple, list or dictionary holds; nothing of anything else."""
    if isinstance(value, tuple | list):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()
