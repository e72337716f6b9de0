"""What is run for a fold: its training, and then the scores of models that are adapted to its signers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ds_trainer.cross_validation.folds import Fold
from ds_trainer.cross_validation.sweep import CommandOf, finished_run

ADAPTED = "adapted.json"
"""In a run directory; what launch/evaluate.py --adapt writes."""


def training_of(flags: Sequence[str | Path], sweep_dir: Path) -> CommandOf:
    """What trains a fold; one that was interrupted continues where it was.

    Args:
        flags: those of launch/train.py that all folds share.
    """

    def command(fold: Fold) -> list[Any]:
        own: list[Any] = ["--runs_dir", fold.dir_in(sweep_dir), "--resume", "auto"]
        return ["ds_trainer", *flags, *fold.flags, *own]

    return command


def adapted_scores_of(inputs: Sequence[str | Path], sweep_dir: Path) -> CommandOf:
    """What scores a trained fold by models adapted to the signers held out.

    Args:
        inputs: flags by which the settings are read: clips may lie elsewhere than when the fold was trained.
    """

    def command(fold: Fold) -> list[Any]:
        run_dir = trained_in(sweep_dir, fold)
        return ["ds_trainer.evaluate", run_dir, "--adapt", "--json", run_dir / ADAPTED, *inputs, *fold.flags]

    return command


def trained_in(sweep_dir: Path, fold: Fold) -> Path:
    """The run directory of a fold that was trained."""
    run_dir = finished_run(fold, sweep_dir)
    assert run_dir is not None, "all folds have ended well"
    return run_dir
