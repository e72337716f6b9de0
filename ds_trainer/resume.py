"""Which run a job continues, decided by `--resume`."""

import json
from pathlib import Path
from typing import Any

import yaml

from ds_trainer.errors import CheckpointError, SettingsError

Identity = dict[str, Any]


def run_to_continue(resume: str, runs_dir: Path, identity: Identity) -> Path | None:
    """The run directory that `--resume` means, or None to start afresh.

    Args:
        resume: auto, must, never, or the path of a run directory.
        identity: what makes this run what it is; a run of another identity is not continued.

    Raises:
        SettingsError: the run at the given path was made with other settings.
        CheckpointError: nothing is there to be continued, or it is damaged, and the job must not start afresh.
    """
    if resume == "never":
        return None
    if resume in ("auto", "must"):
        newest = _newest_unfinished(runs_dir, identity)
        if newest is None and resume == "must":
            raise CheckpointError(
                f"{runs_dir}: found no unfinished run of these settings, expected one; start one with --resume never"
            )
        return newest
    run_dir = Path(resume)
    if not (run_dir / "run.yaml").exists():
        raise CheckpointError(
            f"--resume: {run_dir} is no run directory (no run.yaml); expected auto, must, never or a path"
        )
    differences = _differences(_identity_of(run_dir), identity)
    if differences:
        remedy = "give the settings it was made with, or start afresh with --resume never"
        raise SettingsError([f"--resume {run_dir}: {line}; {remedy}" for line in differences])
    return run_dir


def resume_points(resume_dir: Path) -> list[Path]:
    """The resume points in the folder `resume` of a run, oldest first."""
    return sorted(resume_dir.glob("epoch_*"))


def _newest_unfinished(runs_dir: Path, identity: Identity) -> Path | None:
    for run_dir in sorted(runs_dir.glob("*/"), reverse=True):
        try:
            status = json.loads((run_dir / "status.json").read_text(encoding="utf-8"))["status"]
            is_ours = status != "finished" and not _differences(_identity_of(run_dir), identity)
        except (OSError, ValueError, KeyError, TypeError, CheckpointError):
            continue  # some other directory, or a run that was killed before it had written its settings
        if is_ours and resume_points(run_dir / "resume"):
            return run_dir
    return None


def _identity_of(run_dir: Path) -> Identity:
    try:
        settings = yaml.safe_load((run_dir / "run.yaml").read_text(encoding="utf-8"))
        engine = json.loads((run_dir / "engine.json").read_text(encoding="utf-8"))
        environment = json.loads((run_dir / "environment.json").read_text(encoding="utf-8"))
        return {**settings, "engine config": engine, "data fingerprint": environment["data_fingerprint"]}
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(
            f"--resume: {run_dir}: cannot read what the run was made with ({reason}); start afresh with --resume never"
        ) from error


def _differences(old: Identity, new: Identity) -> list[str]:
    return [
        f"{name} was {_shown(old.get(name), value)}, now {_shown(value, old.get(name))}"
        for name, value in new.items()
        if old.get(name) != value
    ]


def _shown(value: Any, other: Any) -> Any:
    """`value`, without what it has in common with `other` where both are blocks of a config."""
    if isinstance(value, dict) and isinstance(other, dict):
        return {key: _shown(item, other.get(key)) for key, item in value.items() if item != other.get(key)}
    return value
