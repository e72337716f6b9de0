"""What a run saves while it trains: the best checkpoint, and the resume points that it can be continued from.

A resume point is written by all ranks, aside; the master lists its files with sizes and checksums in a manifest, gives
it its name by renaming, and only then names it as the latest: killed at any moment, what stands there is whole.
"""

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from torch.optim.lr_scheduler import ReduceLROnPlateau

from ds_trainer.checkpoint import write_checkpoint
from ds_trainer.distributed import Vote, agreed, gathered, is_master, world_size
from ds_trainer.engine import full_precision_state
from ds_trainer.errors import CheckpointError, WriteError
from ds_trainer.files import sha256, sync_dir, sync_file, write_atomically, write_json
from ds_trainer.progress import log
from ds_trainer.resume import resume_points
from ds_trainer.run_dir import Run
from ds_trainer.stopping import StopRequested
from ds_trainer.validation import Metrics

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

_GO_ON, _SAVE, _STOP = 0, 1, 2


def save_best(engine: "DeepSpeedEngine", run: Run, metrics: Metrics) -> None:
    """Write `best.pth` with full-precision weights on the master rank. Collective."""
    content = {
        **run.provenance,
        "epoch": run.epochs_done,
        "step": run.steps_done,
        "metrics": {"val_loss": metrics.loss, **metrics.named},
        "state_dict": full_precision_state(engine),
    }
    agreed(lambda: write_checkpoint(run.dir / "best.pth", content))


class ResumePoints:
    """Decides between steps whether to write a resume point, and whether the run stops there. Made by all ranks."""

    def __init__(self, engine: "DeepSpeedEngine", run: Run, plateau: ReduceLROnPlateau):
        """Collective."""
        self._engine = engine
        self._run = run
        self._plateau = plateau
        self._vote = Vote()
        self._save_wished = time.monotonic()

    def after_step(self) -> None:
        """Save if that is due on any rank. Collective.

        Raises:
            StopRequested: some rank was asked to stop; on every rank, after the same step.
        """
        reason = self._run.wants_stop()
        wish = self._vote.cast(_STOP if reason else _SAVE if self._is_time_to_save() else _GO_ON)
        every_steps = self._run.cadence.resume_every_steps
        if wish >= _SAVE or (every_steps and self._run.steps_done % every_steps == 0):
            self.save()
        if wish == _STOP:
            raise StopRequested(next(filter(None, gathered(reason)), "another rank"))

    def save(self) -> None:
        """Save now. Collective."""
        save_resume_point(self._engine, self._run, self._plateau)
        self._save_wished = time.monotonic()

    def _is_time_to_save(self) -> bool:
        """By the master's clock, and once: the vote is known one step later, and asking meanwhile would save twice."""
        minutes = self._run.cadence.resume_every_minutes
        is_time = is_master() and minutes > 0 and time.monotonic() - self._save_wished >= 60 * minutes
        if is_time:
            self._save_wished = time.monotonic()
        return is_time


def save_resume_point(engine: "DeepSpeedEngine", run: Run, plateau: ReduceLROnPlateau) -> Path:
    """Write all that training needs to continue from here, bit for bit. Collective.

    DeepSpeed writes a shard for each rank and no barrier stands between the shards and its own `latest` file; so it
    writes into a directory that nobody looks at, without `latest` (seen with deepspeed 0.19.8).
    """
    name = f"epoch_{run.epochs_done:04d}-step_{run.steps_done:08d}"
    resume_dir = run.dir / "resume"
    aside = resume_dir / ".aside"
    agreed(lambda: _empty(aside))
    # Nested under one key: client_state lands at the top level of DeepSpeed's own file and would overwrite its
    # counters.
    state = {"run": run.state_dict(), "plateau": plateau.state_dict()}
    problem = None
    try:
        engine.save_checkpoint(str(aside), tag=name, client_state={"ds_trainer": state}, save_latest=False)
    except (OSError, RuntimeError) as error:
        problem = WriteError.of(aside / name, error)
    problems = [problem for problem in gathered(problem) if problem is not None]
    if problems:
        raise problems[0]
    agreed(lambda: _publish(aside / name, resume_dir, run))
    return resume_dir / name


def _empty(folder: Path) -> None:
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise WriteError.of(folder, error) from error


def _publish(written: Path, resume_dir: Path, run: Run) -> None:
    """List the files of a resume point, give it its name, name it as the latest, and forget the oldest."""
    files = {}
    for file in sorted(written.rglob("*")):
        if file.is_file():
            sync_file(file)
            files[str(file.relative_to(written))] = {"bytes": file.stat().st_size, "sha256": sha256(file)}
    write_json(written / "manifest.json", {"step": run.steps_done, "world_size": world_size(), "files": files})
    final = resume_dir / written.name
    shutil.rmtree(final, ignore_errors=True)
    written.rename(final)
    sync_dir(resume_dir)
    write_atomically(resume_dir / "latest", lambda file: file.write(final.name.encode()))
    for old in resume_points(resume_dir)[: -run.cadence.keep_resume_points]:
        shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(written.parent, ignore_errors=True)


def load_resume_point(engine: "DeepSpeedEngine", run: Run, plateau: ReduceLROnPlateau) -> None:
    """Continue `run` from the newest resume point in its directory that verifies. Collective.

    Raises:
        CheckpointError: there is none, it was saved by another number of ranks, or the ranks loaded different steps.
    """
    point = agreed(lambda: newest_resume_point(run.dir / "resume"))
    path, state = engine.load_checkpoint(str(point.parent), tag=point.name)
    steps = gathered(state["ds_trainer"]["run"]["steps_done"] if path is not None else None)
    if len(set(steps)) != 1 or steps[0] is None:
        raise CheckpointError(f"{point}: the ranks loaded different steps {steps}; is the disk shared by all nodes?")
    plateau.load_state_dict(state["ds_trainer"]["plateau"])
    run.load_state_dict(state["ds_trainer"]["run"])


def newest_resume_point(resume_dir: Path) -> Path:
    """The newest resume point that this job can load; the log says why newer ones were refused.

    Raises:
        CheckpointError: there is none, with what is wrong with each that was refused.
    """
    refused: list[str] = []
    for point in reversed(resume_points(resume_dir)):
        problem = verify_resume_point(point)
        if problem is None:
            for line in refused:
                log.warning(f"refused {line}; going back to {point.name}")
            return point
        refused.append(f"{point}: {problem}")
    raise CheckpointError(refused or f"{resume_dir}: found no resume point; start afresh with --resume never")


def verify_resume_point(point: Path) -> str | None:
    """Why a resume point cannot be loaded by this job, or None."""
    try:
        manifest = json.loads((point / "manifest.json").read_text(encoding="utf-8"))
        for name, expected in manifest["files"].items():
            if (point / name).stat().st_size != expected["bytes"] or sha256(point / name) != expected["sha256"]:
                return f"{name} is damaged: it does not match the manifest"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"incomplete ({error})"
    if manifest["world_size"] != world_size():
        return f"saved by {manifest['world_size']} ranks, this job has {world_size()}; start as many"
    return None
