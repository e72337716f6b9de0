"""A second task beside the signs: it keeps the seam honest, and most tests train it."""

from ds_trainer.tasks.toy.task import ToyTask

TASK = ToyTask
