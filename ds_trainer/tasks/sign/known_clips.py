"""Whether a trained model has learnt from clips, or signers, that are held out or scored now."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from ds_trainer.errors import DataError
from ds_trainer.problems import listed
from ds_trainer.tasks.sign.content import in_both
from ds_trainer.tasks.sign.split_draws import signers_of
from ds_trainer.tasks.sign.store import MAX_NAMES_BYTES, NAMES_FILE
from ds_trainer.tasks.sign.upright import turned_from
from ds_trainer.text_file import read_text

if TYPE_CHECKING:
    from ds_trainer.tasks.sign.task import SignTask


def store_of(fingerprint: str, stores_dir: Path) -> Path | None:
    """The prepared store of this content, whatever has become of the data that it was prepared from."""
    for file in sorted(stores_dir.glob(f"*/{NAMES_FILE}")):
        try:
            if json.loads(read_text(file, MAX_NAMES_BYTES))["fingerprint"] == fingerprint:
                return file.parent
        except (OSError, ValueError, KeyError, TypeError):
            continue  # some other folder, or a damaged store
    return None


def known_among(task: "SignTask", dataset: Dataset[Any], formers: Sequence["SignTask | None"]) -> list[str]:
    """What must be told of scores on `dataset` of a model that was trained as `formers` say; None: its data is gone."""
    notices = []
    here = [former for former in formers if former is not None]
    learnt = [
        former.store.content[former.clips_of(used)] for former in here for used in (former.train_set, former.val_set)
    ]
    clips = task.clips_of(dataset)
    scored = task.store.content[clips]
    known = np.isin(scored, in_both(scored, np.concatenate(learnt))) if learnt else np.zeros(0, dtype=bool)
    if known.any():
        notices.append(f"{known.sum()} of the {len(scored)} scored clips were trained or validated on")
    others = [former for former in here if former.store.fingerprint != task.store.fingerprint]
    turned = [turned_from(task.store, clips, former.store, former.clips_of(former.train_set)) for former in others]
    notices += dict.fromkeys(notice for each in turned for notice in each)
    if len(here) < len(formers):
        notices.append("not compared with its training clips, which are not here any more")
    return notices


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
                f"--pretrained: found {listed(met)} in its training, expected nobody who is held out here; hold "
                "out signers that it held out, or start without it"
            )
    num_val = len(in_both(task.store.content[task.clips_of(task.val_set)], former.store.content[trained]))
    return (
        [f"--pretrained has learnt {num_val} of the clips that validate, which flatters validation"] if num_val else []
    )
