"""What a run saves while it trains: the best checkpoint, and the resume points that it can be continued from.

All ranks give their part, the master rank copies it off its device and writes it beside training.
"""

import time
from types import TracebackType
from typing import TYPE_CHECKING

from torch.optim.lr_scheduler import ReduceLROnPlateau

from ds_trainer.checkpoint import load_checkpoint, write_checkpoint
from ds_trainer.distributed import agreed, is_master, world_size
from ds_trainer.engine.state import engine_state, full_precision_state, load_engine_state
from ds_trainer.errors import CheckpointError, WriteError
from ds_trainer.files import remove_asides
from ds_trainer.progress import log
from ds_trainer.run.resume_points import State, newest_resume_point, write_resume_point
from ds_trainer.run.run_dir import Run
from ds_trainer.run.writing import Writer
from ds_trainer.stopping import StopRequested
from ds_trainer.validation import Metrics
from ds_trainer.watch.whereabouts import stand_at

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


class Saving:
    """Saves while it is open; when it closes, everything is on disk. Opened, used and closed by all ranks."""

    def __init__(self, engine: "DeepSpeedEngine", run: Run, plateau: ReduceLROnPlateau):
        self._engine = engine
        self._run = run
        self._plateau = plateau
        self._writer = Writer()
        self._save_wished = time.monotonic()

    def best(self, metrics: Metrics) -> None:
        """Write `best.pth` with full-precision weights. Collective."""
        run = self._run
        stand_at("saving")
        content = {
            **run.provenance,
            "epoch": run.epochs_done,
            "step": run.steps_done,
            "metrics": {"val_loss": metrics.loss, **metrics.named},
            "state_dict": full_precision_state(self._engine),
        }
        if is_master():
            self._writer.write("best.pth", lambda: write_checkpoint(run.dir / "best.pth", content))

    def resume_point(self) -> None:
        """Write all that training needs to continue from here, bit for bit. Collective."""
        stand_at("saving")
        run = self._run
        name = f"epoch_{run.epochs_done:04d}-step_{run.steps_done:08d}"
        state = {
            "world_size": world_size(),
            "run": run.state_dict(),
            "plateau": self._plateau.state_dict(),
            "engine": engine_state(self._engine),
        }
        num_kept = run.cadence.keep_resume_points

        def write() -> None:
            run.records.sync()  # a resume point counts on the records before it
            write_resume_point(run.dir / "resume", name, state, num_kept)

        if is_master():
            self._writer.write("resume point", write)
        self._save_wished = time.monotonic()

    def is_time_to_save(self) -> bool:
        """By the master's clock, and once: the vote is known one step later, and asking meanwhile would save twice."""
        minutes = self._run.cadence.resume_every_minutes
        is_time = is_master() and minutes > 0 and time.monotonic() - self._save_wished >= 60 * minutes
        if is_time:
            self._save_wished = time.monotonic()
        return is_time

    def __enter__(self) -> "Saving":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Collective, unless training failed: then the other ranks may be anywhere.

        Raises:
            WriteError: something could still not be written; on every rank.
        """
        problems = self._writer.finish() + self._run.records.flush()
        self._writer.close()
        if kind is None or issubclass(kind, StopRequested):
            agreed(lambda: _raise_if_any(problems))
        elif problems:
            log.error("\n".join(problems))


def _raise_if_any(problems: list[str]) -> None:
    if problems:
        raise WriteError(problems)


def load_resume_point(engine: "DeepSpeedEngine", run: Run, plateau: ReduceLROnPlateau) -> None:
    """Continue `run` from the newest resume point in its directory that verifies, on any number of ranks. Collective.

    Raises:
        CheckpointError: there is none, or it is of another model.
    """
    stand_at("loading")
    state: State = {}

    def read() -> State:
        remove_asides(run.dir)
        _, found = newest_resume_point(run.dir / "resume")
        state.update(found)
        return {name: value for name, value in found.items() if name != "engine"}

    small = agreed(read)
    try:
        load_engine_state(engine, state.get("engine", {}))
        plateau.load_state_dict(small["plateau"])
        run.load_state_dict(small["run"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # all ranks look at the same
        raise CheckpointError(
            f"{run.dir / 'resume'}: no state that this version continues from ({type(error).__name__}: {error}); go "
            f"back to the version it was made with, or start afresh with --resume never"
        ) from error
    if small["world_size"] != world_size():
        log.info(f"saved by {small['world_size']} ranks, continued by {world_size()}")
    if run.best_epoch >= 0 and not agreed(lambda: _is_best_whole(run)):
        run.forget_best()


def _is_best_whole(run: Run) -> bool:
    try:
        epoch = load_checkpoint(run.dir / "best.pth")["epoch"]
        if epoch < run.best_epoch:  # a later one was written after the resume point, and will be again
            raise CheckpointError(
                f"{run.dir / 'best.pth'}: found the model of epoch {epoch + 1}, expected that of {run.best_epoch + 1}"
            )
        return True
    except CheckpointError as error:
        log.warning(f"refused {error}; the next epoch's model takes the place of the best")
        return False
