"""What the folds score, found before the first of them trains: what one of them would refuse is refused at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ds_trainer.cross_validation.folds import Fold
from ds_trainer.errors import DataError
from ds_trainer.pretrained import before, not_known
from ds_trainer.problems import shortened
from ds_trainer.progress import log
from ds_trainer.source import load_source
from ds_trainer.tasks.sign.split_draws import is_of
from ds_trainer.tasks.sign.task import SignTask


@dataclass(frozen=True)
class Scored:
    """The clips that each signer is scored on, by the name of the signer.

    Args:
        num_clips: all of them.
        num_untrained: those of signs that no training clip shows, so that none is recognised; with the seed for which
            they are the most.
    """

    num_clips: dict[str, int]
    num_untrained: dict[str, int]


def scored_by(folds: Sequence[Fold], settings: Any) -> Scored:
    """What the test splits of all folds hold; the log is told what weights that they begin with may know of these.

    Raises:
        DataError: with what each group of signers cannot be held out for.
    """
    pretrained = [] if settings.pretrained is None else [load_source(settings.pretrained)]
    earlier = [each for checkpoint in pretrained for each in (checkpoint, *before(checkpoint))]
    scored, refused, notices = Scored({}, {}), dict[tuple[str, ...], list[str]](), dict[str, None]()
    for fold in folds:
        if fold.signers in refused:
            continue
        try:
            task = SignTask(settings.model_copy(update={"split": fold.split, "seed": fold.seed}))
            notices |= dict.fromkeys(not_known(earlier, task))
        except DataError as error:
            refused[fold.signers] = [f"{fold}: {problem}" for problem in error.problems]
        else:
            _count(task, fold, scored)
    if refused:
        raise DataError(shortened([problem for problems in refused.values() for problem in problems]))
    for notice in shortened(list(notices)):
        log.info(f"note: {notice}")
    return scored


def _count(task: SignTask, fold: Fold, scored: Scored) -> None:
    """Add what the test split of a fold holds to what is scored."""
    test, trained = task.clips_of(task.test_set), task.store.sign[task.clips_of(task.train_set)]
    for signer in fold.signers:
        own = test[is_of(task.store, [signer])[test]]
        num_untrained = int((~np.isin(task.store.sign[own], trained)).sum())
        scored.num_clips[signer] = len(own)
        scored.num_untrained[signer] = max(num_untrained, scored.num_untrained.get(signer, 0))
