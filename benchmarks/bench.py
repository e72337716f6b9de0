"""What every row needs: how much to measure, where to put files, and contests between contestants."""

import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.alternation import Contestant, Effort, Samples, alternate
from benchmarks.case import Case
from benchmarks.case_writer import write_case
from benchmarks.figures import Line
from benchmarks.stores import read_once, synthetic_store

QUICK_CLIPS, CLIPS = 1_000, 4_000
_PACKAGES = ("accelerate",)  # contestants that may be missing
_IN_BF16 = ("plain", "deepspeed", "accelerate")
_EMULATED_BELOW = 0.1


@dataclass
class Outcome:
    """What a row came to.

    Args:
        lines: of the table.
        notes: what the table does not say.
        samples: every raw number, by case and contestant.
    """

    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    samples: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """A session of measuring.

    Args:
        peak_flops: FLOP/s of a matrix product on this machine, by precision.
        say: tells a person how far it is.
    """

    effort: Effort
    work_dir: Path
    peak_flops: Mapping[str, float]
    say: Callable[[str], None]

    def store(self) -> Path:
        """The clips that most rows train on."""
        return synthetic_store(QUICK_CLIPS if self.effort.is_quick else CLIPS, self.say)

    def case(self, size: str, micro_batch: int, dropout: float = 0.3, store: Path | None = None) -> Case:
        """A case of its own folder, whose clips are in the page cache."""
        chosen = store or self.store()
        read_once(chosen)
        folder = Path(tempfile.mkdtemp(prefix=f"{size}-", dir=self.work_dir))
        return write_case(folder / "case", chosen, size, micro_batch, dropout, self.effort.engine_config)

    def affordable(self, outcome: Outcome, title: str, names: Sequence[str]) -> tuple[str, ...]:
        """Those whose steps take seconds: where bf16 is emulated, one of `s_4_6` in it takes minutes."""
        if self.peak_flops["bf16"] >= _EMULATED_BELOW * self.peak_flops["fp32"]:
            return tuple(names)
        left_out = [name for name in names if name in _IN_BF16]
        if left_out:
            peak = self.peak_flops["bf16"] / 1e9
            outcome.notes.append(f"{title}: left out: {', '.join(left_out)}: bf16 at {peak:.1f} GFLOP/s here")
        return tuple(name for name in names if name not in left_out)

    def contest(
        self,
        outcome: Outcome,
        title: str,
        names: Iterable[str],
        case: Case,
        effort: Effort | None = None,
        world_size: int = 1,
        is_counted: bool = False,
    ) -> Samples:
        """The samples of the contestants that are installed, which are also kept in `outcome`."""
        chosen = effort or self.effort
        self.say(f"{title}: {', '.join(names)}")
        missing = [name for name in names if name in _PACKAGES and not importlib.util.find_spec(name)]
        outcome.notes += [f"{title}: {name} is not installed: pip install {name}" for name in missing]
        contestants = [Contestant(name, case, chosen, world_size, is_counted) for name in names if name not in missing]
        samples, problems = alternate(contestants, chosen.rounds)
        outcome.notes += [f"{title}: {problem}" for problem in problems]
        outcome.samples[title] = samples
        shutil.rmtree(case.folder / "runs", ignore_errors=True)
        return samples | {name: [] for name in missing}
