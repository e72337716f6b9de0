"""Dropout whose random numbers cost little on a CPU.

There `torch.nn.functional.dropout` draws a number in a chain of its own for each activation, which took a third of the
training of `s_4_6`. Here eight activations share a 64-bit word, a byte each.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

_LEVELS = 256
_LEAST, _BYTES = -(2**63), 8


class Dropout(nn.Module):
    """Leaves out activations in training, and enlarges the others so that their mean stays.

    On a CPU the fraction is rounded to the nearest 1/256, so that 0.3 is 0.3008.

    Args:
        fraction: of activations to leave out, 0 to below 1.
    """

    def __init__(self, fraction: float):
        super().__init__()
        self.fraction = fraction

    def forward(self, values: Tensor) -> Tensor:
        """float[...], of the same shape."""
        if not self.training or self.fraction == 0:
            return values
        if values.device.type != "cpu" or torch.compiler.is_compiling():  # which fails on words seen as bytes
            return functional.dropout(values, self.fraction)
        num_left_out = min(round(self.fraction * _LEVELS), _LEVELS - 1)
        is_kept = random_bytes(values.numel()).view(values.shape) >= num_left_out
        return values * (is_kept.to(values.dtype) * (_LEVELS / (_LEVELS - num_left_out)))

    def extra_repr(self) -> str:
        return f"{self.fraction:g}"


def random_bytes(number: int) -> Tensor:
    """uint8[number], by torch's generator for the CPU: each value of a byte equally often."""
    words = torch.empty(-(-number // _BYTES), dtype=torch.int64).random_(_LEAST, None)
    return words.view(torch.uint8)[:number]
