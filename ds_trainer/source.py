"""What is exported: a checkpoint, or the state at a resume point, whichever ZeRO stage and world size wrote it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ds_trainer.checkpoint import load_checkpoint, load_model, task_type_of
from ds_trainer.engine.flat_model import state_names
from ds_trainer.errors import CheckpointError, looking_at
from ds_trainer.paths import is_dir, is_file
from ds_trainer.problems import reason_of
from ds_trainer.run.resume_points import AVERAGE, newest_resume_point, read_resume_point

Checkpoint = dict[str, Any]


def load_source(path: Path, task: str | None = None) -> Checkpoint:
    """The checkpoint at `path`: a `.pth`, a run directory (its best), the folder `resume` of one, or a point in it.

    Args:
        task: that of the checkpoint, if it is one of your own.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    with looking_at(path, CheckpointError):
        if is_file(path):
            return load_checkpoint(path)
        if is_file(path / "best.pth"):
            return load_checkpoint(path / "best.pth")
        if path.name == "resume" and is_dir(path):
            return _at_resume_point(folder_of(path), *newest_resume_point(path), task)
        if path.parent.name == "resume" and is_dir(path):
            return _at_resume_point(folder_of(path), path, read_resume_point(path), task)
    raise CheckpointError(
        f"{path}: found no checkpoint, expected a .pth, a run directory with best.pth, its folder resume (the newest "
        "resume point), or one resume point in it"
    )


def folder_of(source: Path) -> Path:
    """The run directory, also of a resume point in it, which the run deletes in time; the folder of a file."""
    if source.is_file() or source.name == "resume":
        return source.parent
    return source.parents[1] if source.parent.name == "resume" else source


def uncalibrated(checkpoint: Mapping[str, Any]) -> list[str]:
    """What must be told of a checkpoint with classes that has no temperature."""
    remedy = "best.pth of a run that has ended has one"
    told = f"no temperature was fitted to these weights: confidences are not calibrated; {remedy}"
    return [] if "temperature" in checkpoint else [told]


def _at_resume_point(run_dir: Path, point: Path, state: dict[str, Any], task: str | None) -> Checkpoint:
    """As `best.pth` would be, had the run written it at a resume point.

    What the model is stands in the run's best checkpoint. Averaged weights are taken where the run keeps them.
    """
    try:
        return _as_best(run_dir, point, state, task)
    except (KeyError, TypeError, IndexError, AttributeError) as error:  # its checksum is right: it was made up
        raise CheckpointError(
            f"{point}: no state that this version reads ({type(error).__name__}: {reason_of(error)}); go back to the "
            "version it was made with, or give another resume point"
        ) from error


def _as_best(run_dir: Path, point: Path, state: dict[str, Any], task: str | None) -> Checkpoint:
    if state["run"]["epochs_done"] == 0 and not (run_dir / "best.pth").exists():
        raise CheckpointError(
            f"{point}: no epoch of the run has ended yet, expected one: best.pth, which comes with it, says what the "
            "model is; continue the run to the end of an epoch"
        )
    about = load_checkpoint(run_dir / "best.pth")
    engine = state["engine"]
    trained = engine["moments"].get(AVERAGE) or engine["weights"]
    values = {**engine["others"][0], **trained}
    task_type_of(about, task, run_dir)  # imports one of your own, if it is named
    names = state_names(load_model(about))
    missing = sorted(set(names.values()) - values.keys())
    if missing:
        raise CheckpointError(f"{point}: has no {missing[0]}, expected the state of the model of best.pth beside it")
    weights = {
        name: values[own].float() if values[own].is_floating_point() else values[own] for name, own in names.items()
    }
    done = {"epoch": state["run"]["epochs_done"] - 1, "step": state["run"]["steps_done"], "metrics": {}}
    return {**{key: value for key, value in about.items() if key != "temperature"}, **done, "state_dict": weights}
