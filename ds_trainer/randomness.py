"""Random numbers that are a function of (seed, epoch, example, name): nothing to save, the same at any world size.

A generator with a state gives an example other numbers when the batch, the rank or the order changes, and its state has
to be saved for an exact resume. Here each number is the hash of its own coordinates, so the augmentation of an example
in an epoch is the same on one rank or eight, and after a resume in mid-epoch.

Axes: B examples, N columns.
"""

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# The increment and the finaliser of SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number
# generators", 2014.
_INCREMENT = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_MASK = (1 << 64) - 1


def mixed(*numbers: int) -> int:
    """One well-mixed integer in 0..2**63 - 1 from several: a seed for a generator."""
    state = 0
    for number in numbers:
        state = _mix_integer((state + number + 1) * _INCREMENT & _MASK)
    return state >> 1


def seed_torch(seed: int) -> None:
    """Seed torch's generators of the CPU and, where there is one, of this rank's GPU.

    `torch.manual_seed` does the same, and asks for accelerators of three other kinds besides: 0.2 ms a call (2.13.0).
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)


def seed_all(seed: int) -> None:
    """Seed the generators that code of others may draw from: Python's, numpy's and torch's."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    seed_torch(seed)


def _mix_integer(x: int) -> int:
    x = (x ^ (x >> 30)) * _MULTIPLIERS[0] & _MASK
    x = (x ^ (x >> 27)) * _MULTIPLIERS[1] & _MASK
    return x ^ (x >> 31)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >> 63 else x


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64: torch's own keeps the sign."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix_tensor(x: Tensor) -> Tensor:
    # In place where it can be: for millions of numbers, asking for memory takes longer than the arithmetic.
    x = _shifted(x, 30).bitwise_xor_(x).mul_(_signed(_MULTIPLIERS[0]))
    x = _shifted(x, 27).bitwise_xor_(x).mul_(_signed(_MULTIPLIERS[1]))
    return _shifted(x, 31).bitwise_xor_(x)


@dataclass(frozen=True)
class Draw:
    """The random numbers of the examples of one batch.

    Args:
        state_B1: int64[B, 1], a well-mixed number of each example, from which all others follow. It alone changes from
            batch to batch: what is compiled with a draw serves every epoch.
    """

    state_B1: Tensor

    @classmethod
    def of(cls, seed: int, epoch: int, index_B: Tensor) -> "Draw":
        """Those of the run's seed and an epoch, counted from 0, for examples of these numbers in the split, int64[B].

        They are on the device of `index_B`.
        """
        return cls(_mix_tensor(index_B[:, None] * _signed(_INCREMENT) + mixed(seed, epoch)))

    def on(self, device: torch.device) -> "Draw":
        """The same numbers, computed on `device`."""
        return Draw(self.state_B1.to(device, non_blocking=True))

    def uniform(self, name: str, num_columns: int = 1) -> Tensor:
        """float32[B, num_columns], uniform in [0, 1). Other names give independent numbers."""
        # 24 bits: what a float32 in [0, 1) holds exactly.
        return _shifted(self._hashes(name, num_columns), 40).float() * 2.0**-24

    def between(self, name: str, low: float, high: float, num_columns: int = 1) -> Tensor:
        """float32[B, num_columns], uniform in [low, high)."""
        return low + (high - low) * self.uniform(name, num_columns)

    def coarse(self, name: str, num_columns: int) -> Tensor:
        """float32[B, num_columns], uniform in (-1, 1) in steps of 2**-15: millions of them, four to a hash."""
        hash_BN = self._hashes(name, -(-num_columns // 4))
        return hash_BN.view(torch.int16)[:, :num_columns].float().add_(0.5).mul_(2.0**-15)

    def _hashes(self, name: str, num_columns: int) -> Tensor:
        """int64[B, num_columns], all bits of which are random.

        As SplitMix64 does with its streams, each example counts in odd steps of its own, from a start of the name's.
        """
        columns_N = torch.arange(1, num_columns + 1, device=self.state_B1.device)
        return _mix_tensor(torch.addcmul(self.state_B1 + mixed(*name.encode()), columns_N, self.state_B1 | 1))
