"""Word-level sign recognition on keypoint sequences."""

from ds_trainer.tasks.sign.task import SignTask

TASK = SignTask
