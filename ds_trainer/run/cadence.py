"""When a run writes and what it keeps, and when it stops early: the settings that say so."""

from dataclasses import dataclass, fields

from ds_trainer.settings import RunSettings


@dataclass(frozen=True)
class Cadence:
    """When a run writes and what it keeps, and when it stops early.

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

    record_every_steps: int
    resume_every_steps: int
    resume_every_minutes: float
    keep_resume_points: int
    model_selection: str
    early_stopping_epochs: int
    max_skipped_steps: int
    profile: bool

    @classmethod
    def of(cls, settings: RunSettings) -> "Cadence":
        """What the settings of a run say of it."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})
