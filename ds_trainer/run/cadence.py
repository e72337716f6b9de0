"""When a run writes, and when it stops early."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cadence:
    """When a run writes, and when it stops early.

    Args:
        record_every_steps: steps between two step lines of metrics.jsonl.
        resume_every_steps: steps between two resume points; 0: only at the end of each epoch.
        resume_every_minutes: minutes between two resume points within an epoch; 0: only at its end.
        keep_resume_points: the newest that are kept.
        model_selection: the epoch whose model is the best: "loss", that of the lowest validation loss, or "last".
        early_stopping_epochs: stop after so many epochs without a better validation loss; 0: never.
        max_skipped_steps: stop after so many steps in a row whose gradient was not finite.
        profile: write where the time of a few steps of the first epoch goes.
    """

    record_every_steps: int = 20
    resume_every_steps: int = 0
    resume_every_minutes: float = 0.0
    keep_resume_points: int = 1
    model_selection: str = "loss"
    early_stopping_epochs: int = 0
    max_skipped_steps: int = 10
    profile: bool = False
