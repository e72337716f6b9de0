"""The tasks that the trainer can train: each plugs into the seam of `ds_trainer.task`."""
