"""Whether a model that is trained on has learnt from clips, or signers, that are held out now."""

from typing import TYPE_CHECKING

import numpy as np

from ds_trainer.errors import DataError
from ds_trainer.tasks.sign.split_draws import in_both, signers_of

if TYPE_CHECKING:
    from ds_trainer.tasks.sign.task import SignTask


def refuse_known_clips(task: "SignTask", former: "SignTask") -> list[str]:
    """Compare what `task` holds out with what `former`, the task of an earlier training, trained and validated on.

    Recordings are known by their content, whatever data they are in. Signers have names, which mean the same people
    where the two have recordings in common.

    Returns:
        What the log must say.

    Raises:
        DataError: a clip or an unseen signer of the test split is known to the former.
    """
    test, trained = task.clips_of(task.test_set), former.clips_of(former.train_set)
    learnt = np.concatenate([trained, former.clips_of(former.val_set)])
    known = in_both(task.store.content[test], former.store.content[learnt])
    if len(known):
        raise DataError(
            f"--pretrained: found {len(known)} of the {len(test)} test clips in its training, expected none: results "
            "would flatter; hold out signers that it held out, or start without it"
        )
    if len(in_both(task.store.content, former.store.content)):
        unseen = set(signers_of(task.store, test)) - set(signers_of(task.store, task.clips_of(task.train_set)))
        met = sorted(unseen & set(signers_of(former.store, learnt)))
        if met:
            raise DataError(
                f"--pretrained: found {', '.join(met[:5])} in its training, expected nobody who is held out here; hold "
                "out signers that it held out, or start without it"
            )
    num_val = len(in_both(task.store.content[task.clips_of(task.val_set)], former.store.content[trained]))
    return (
        [f"--pretrained has learnt {num_val} of the clips that validate, which flatters validation"] if num_val else []
    )
