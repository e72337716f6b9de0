"""Which signers are held out together, and the runs that this makes."""

import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ds_trainer.errors import DataError, SettingsError
from ds_trainer.tasks.sign.clips import NAMING_SIGNERS, NOBODY
from ds_trainer.tasks.sign.split_draws import holding_out

_LONGEST_NAME = 80


@dataclass(frozen=True)
class Fold:
    """One training: the signers that it never sees, and its seed."""

    signers: tuple[str, ...]
    seed: int

    @property
    def split(self) -> str:
        """What `--split` is."""
        return holding_out(self.signers)

    @property
    def flags(self) -> list[str]:
        """What the training is told beside the settings that all folds share."""
        return ["--split", self.split, "--seed", str(self.seed)]

    def dir_in(self, sweep_dir: Path) -> Path:
        """Where its run is kept."""
        signers = "_".join(self.signers)
        name = re.sub(r"[^\w.-]", "_", signers).lstrip(".")[:_LONGEST_NAME]
        if name != signers:  # two groups could have the same
            name = f"{name}-{hashlib.blake2b(signers.encode(), digest_size=4).hexdigest()}"
        return sweep_dir / f"seed_{self.seed}" / name

    def __str__(self) -> str:
        return f"{', '.join(self.signers)} held out, seed {self.seed}"


def folds_of(signers: Sequence[str], num_groups: int | None, num_seeds: int, first_seed: int) -> list[Fold]:
    """Every group of signers once a seed, all groups of a seed before the next seed.

    Args:
        signers: their names, sorted.
        num_groups: of signers that are held out together, of sizes that differ by one at most and in the order of their
            names; None: each signer by itself.

    Raises:
        DataError: the data names none.
        SettingsError: there are not enough signers.
    """
    if list(signers) == [NOBODY]:
        raise DataError(f"--data: does not say who signs, expected at least two signers; {NAMING_SIGNERS}")
    if len(signers) < 2:
        found = f"{signers[0]} alone" if signers else "nobody"
        raise SettingsError(
            f"--signers: found {found} to hold out, expected two at least; name more, or give other --data"
        )
    if num_groups is not None and not 2 <= num_groups <= len(signers):
        raise SettingsError(f"--folds: found {num_groups}, expected 2 to {len(signers)}, the number of signers")
    num_groups = num_groups or len(signers)
    bounds = [-(-group * len(signers) // num_groups) for group in range(num_groups + 1)]  # rounded up
    groups = [tuple(signers[first:last]) for first, last in itertools.pairwise(bounds)]
    return [Fold(group, first_seed + number) for number in range(num_seeds) for group in groups]
