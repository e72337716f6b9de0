"""One rank of the validation test: scores a fixed model on a split that divides by nothing.

validation_worker.py OUT      under RANK, WORLD_SIZE, ...; rank 0 writes OUT/world_{size}.pt
"""

import sys
from pathlib import Path

import torch

from ds_trainer import distributed
from ds_trainer.batches import BatchLoader, ShardedSampler
from ds_trainer.classification import confusion_matrix
from ds_trainer.tasks.toy.task import ToyTask
from ds_trainer.validation import validate
from numerics.worker import SETTINGS


def main(out: Path) -> None:
    distributed.join(60)
    task = ToyTask(SETTINGS)
    torch.manual_seed(1)
    model = task.build_model()
    val_dl = BatchLoader(task.val_set, ShardedSampler(len(task.val_set), 7), task.prepare)
    metrics = validate(model, task.objective, val_dl)
    if distributed.is_master():
        found = {
            "loss": metrics.loss,
            "named": metrics.named,
            "measures": metrics.measures_NM,
            "losses": metrics.losses_N,
            "confusion": torch.from_numpy(confusion_matrix(metrics.measures_NM, SETTINGS.num_arms)),
        }
        torch.save(found, out / f"world_{distributed.world_size()}.pt")
    distributed.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
