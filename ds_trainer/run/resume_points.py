"""The files of a resume point: written whole or not at all, verified before they are read, never run as code.

resume/
  epoch_0003-step_00000120/state.pt         what training continues from
  epoch_0003-step_00000120/manifest.json    size and checksum of each file

A point is written aside, brought to disk, listed in its manifest, and only then renamed: killed at any moment, what
stands there is whole, and the newest is found by its name. One file, and not one a rank: ranks and steps cannot be
mixed, other ranks need no disk in common with the master, and any number of ranks can continue.
"""

import re
import shutil
from pathlib import Path
from typing import Any

import torch

from ds_trainer.checkpoint_room import refuse_repeated
from ds_trainer.errors import CheckpointError, WriteError, looking_at
from ds_trainer.files import sha256, sync, write_atomically, write_json
from ds_trainer.paths import is_dir
from ds_trainer.problems import reason_of, shown
from ds_trainer.progress import log
from ds_trainer.run.reading import read_json
from ds_trainer.text_file import check_regular

FORMAT = "ds_trainer resume point 1"
AVERAGE = "weight_average"
"""The name of averaged weights, where a run keeps them, among the moments of its optimizer."""

State = dict[str, Any]

_NAME = re.compile(r"epoch_[0-9]+-step_[0-9]+")


def resume_points(resume_dir: Path) -> list[Path]:
    """The resume points in the folder `resume` of a run, oldest first.

    Raises:
        CheckpointError: the folder cannot be looked into, which is not the same as none.
    """
    with looking_at(resume_dir, CheckpointError):
        return _points_in(resume_dir)


def _points_in(resume_dir: Path) -> list[Path]:
    found = [*resume_dir.iterdir()] if is_dir(resume_dir) else []
    return sorted((path for path in found if _NAME.fullmatch(path.name)), key=place)


def place(point: Path) -> tuple[int, ...]:
    """The epoch and the step of a resume point, by its name: as text, epoch 10000 would come before 9999."""
    return tuple(map(int, re.findall(r"\d+", point.name)))


def write_resume_point(resume_dir: Path, name: str, state: State, num_kept: int) -> None:
    """Write `state`, plain values and tensors, as the newest resume point; then forget all but the newest `num_kept`.

    Raises:
        WriteError: the disk is full, read-only or gone; the points before are as they were.
    """
    aside = resume_dir / ".aside"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        resume_dir.mkdir(exist_ok=True)
        aside.mkdir()
        write_atomically(aside / "state.pt", lambda file: torch.save({"format": FORMAT, **state}, file))
        files = {"state.pt": {"bytes": (aside / "state.pt").stat().st_size, "sha256": sha256(aside / "state.pt")}}
        write_json(aside / "manifest.json", {"files": files})
        shutil.rmtree(resume_dir / name, ignore_errors=True)
        aside.rename(resume_dir / name)
        sync(resume_dir)
        # Later ones were refused: they must not take the places of good ones.
        not_later = [point for point in _points_in(resume_dir) if place(point) <= place(resume_dir / name)]
    except OSError as error:
        raise WriteError.of(resume_dir / name, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # half a point would take the room of the next attempt
    for old in not_later[:-num_kept]:
        shutil.rmtree(old, ignore_errors=True)


def newest_resume_point(resume_dir: Path) -> tuple[Path, State]:
    """The newest resume point that is whole, and its state; the log says why newer ones were refused.

    Raises:
        CheckpointError: there is none, with what is wrong with each that was refused.
    """
    refused: list[str] = []
    for point in reversed(resume_points(resume_dir)):
        try:
            state = read_resume_point(point)
        except CheckpointError as error:
            refused += error.problems
            continue
        for problem in refused:
            log.warning(f"refused {problem}; going back to {point.name}")
        return point, state
    raise CheckpointError(refused or f"{resume_dir}: found no resume point; start afresh with --resume never")


def read_resume_point(point: Path) -> State:
    """The state in a resume point whose files match its manifest. No code that it may carry is run.

    Raises:
        CheckpointError: it is incomplete, damaged or of another format.
    """
    try:
        manifest = read_json(point / "manifest.json")
        expected, path = manifest["files"]["state.pt"], point / "state.pt"
        check_regular(path)
        if path.stat().st_size != expected["bytes"] or sha256(path) != expected["sha256"]:
            raise CheckpointError(f"{point}: state.pt is damaged: it does not match the manifest")
        state = torch.load(path, map_location="cpu", weights_only=True)
        refuse_repeated(state)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file fails in many ways, each with a type of its own
        raise CheckpointError(f"{point}: incomplete or damaged ({reason_of(error)})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(f"{point}: found format {shown(found)}, expected {FORMAT!r}")
    return state
