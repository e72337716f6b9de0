"""Which run a job continues, decided by `--resume`, and with which engine config."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ds_trainer import distributed
from ds_trainer.errors import CheckpointError, SettingsError, looking_at
from ds_trainer.paths import exists, is_dir
from ds_trainer.problems import reason_of
from ds_trainer.progress import log
from ds_trainer.run.reading import read_json, read_yaml
from ds_trainer.run.resume_points import place, resume_points
from ds_trainer.settings import RunSettings, identity
from ds_trainer.task import Task

_MOST_TOLD = 3

Identity = dict[str, Any]
IdentityAt = Callable[[int], Identity]


def choose_run(
    settings: RunSettings, task: Task, engine_config_at: Callable[[int], dict[str, Any]]
) -> tuple[Path | None, dict[str, Any]]:
    """The run directory to continue, or None for a new run, and the engine config to go on with.

    Args:
        engine_config_at: what a new run on so many ranks would have.

    Raises:
        CheckpointError: there is nothing to continue, and there must be.
        SettingsError: the run to continue was made with other settings, or the engine config is faulty.
    """

    def identity_at(ranks: int) -> Identity:
        others = {"engine config": engine_config_at(ranks), "data fingerprint": task.fingerprint()}
        return identity(settings) | others

    run_dir = run_to_continue(settings.resume, settings.runs_dir, identity_at)
    ranks = distributed.world_size()
    return run_dir, engine_config_at(ranks) if run_dir is None else engine_config_on(run_dir, ranks)


def run_to_continue(resume: str, runs_dir: Path, identity_at: IdentityAt) -> Path | None:
    """The run directory that `--resume` means, or None to start afresh.

    Args:
        resume: auto, must, never, or the path of a run directory.
        identity_at: what makes this job's run what it is, were it started by so many ranks: the engine config's batch
            sizes depend on them. A run of another identity is not continued.

    Raises:
        SettingsError: the run at the given path was made with other settings.
        CheckpointError: nothing is there to be continued, or it is damaged, and the job must not start afresh.
    """
    if resume == "never":
        return None
    if resume in ("auto", "must"):
        with looking_at(runs_dir, CheckpointError):
            newest = _newest_unfinished(runs_dir, identity_at)
        if newest is None and resume == "must":
            raise CheckpointError(
                f"{runs_dir}: found no unfinished run of these settings, expected one; start one with --resume never"
            )
        return newest
    run_dir = Path(resume)
    with looking_at(run_dir, CheckpointError):
        if not exists(run_dir / "run.yaml"):
            raise CheckpointError(
                f"--resume: {run_dir} is no run directory (no run.yaml); expected auto, must, never or a path"
            )
    differing = differences(run_dir, identity_at)
    if differing:
        remedy = "give the settings it was made with, or start afresh with --resume never"
        if any(line.startswith("data fingerprint") for line in differing):
            remedy += f"; --pretrained {run_dir} begins a new run on other data with its weights"
        raise SettingsError([f"--resume {run_dir}: {line}; {remedy}" for line in differing])
    return run_dir


def refuse_lagging_master(run_dir: Path | None, find: Callable[[], Path | None]) -> None:
    """Refuse to go on where another host holds a later resume point than the master. Collective.

    The master alone writes and reads them. Where each host has a disk of its own, one that was not the master before
    has none, or an old one, and would train again what has been trained.

    Args:
        run_dir: what the master is to continue; None: it starts afresh.
        find: looks for the run to continue on this host's disk.

    Raises:
        CheckpointError: on every rank.
    """
    own = run_dir if distributed.is_master() else find() if distributed.local_rank() == 0 else None
    master, *others = distributed.gathered(_Held.by(own))
    later = max((held for held in others if held.is_later_than(master)), key=lambda held: held.written_s, default=None)
    if later is not None and later.point is not None:
        found = "none" if master.point is None else f"only {master.point.parents[1].name}/{master.point.name}"
        raise CheckpointError(
            f"--resume auto: found {later.point.parents[1]} with {later.point.name} on {later.host}, and {found} on "
            f"{master.host}, which has rank 0 now; expected the latest there, as rank 0 alone reads it: start with "
            f"{later.host} first, or copy it to {master.host}; or start afresh with --resume never"
        )


class _Held(NamedTuple):
    """The newest resume point of the run that a host would continue."""

    host: str
    point: Path | None
    written_s: float

    @classmethod
    def by(cls, run_dir: Path | None) -> "_Held":
        point = None if run_dir is None else _newest_point(run_dir)
        return cls(socket.gethostname(), point, 0.0 if point is None else _written_s(point))

    def is_later_than(self, other: "_Held") -> bool:
        if self.point is None or other.point is None:
            return self.point is not None
        if self.point.parents[1].name == other.point.parents[1].name:  # a copy is written later than what it is of
            return place(self.point) > place(other.point)
        return self.written_s > other.written_s


def _newest_point(run_dir: Path) -> Path | None:
    points = resume_points(run_dir / "resume")
    return points[-1] if points else None


def _written_s(point: Path) -> float:
    """When a resume point was written, in seconds of UTC.

    The name of a run begins with local time, which each autumn goes through an hour twice.
    """
    try:
        return point.stat().st_mtime
    except OSError:  # removed meanwhile by a job that trains there
        return 0.0


def engine_config_on(run_dir: Path, world_size: int) -> dict[str, Any]:
    """The engine config of a run that `world_size` ranks continue: the same global batch, cut in another way.

    Raises:
        SettingsError: so many ranks cannot share it equally.
    """
    config = read_json(run_dir / "engine.json")
    batch, micro_batch = config["train_batch_size"], config["train_micro_batch_size_per_gpu"]
    if batch % world_size:
        below, above = batch // world_size * world_size, -(-batch // world_size) * world_size
        fitting = [ranks for ranks in range(1, 2 * world_size + 1) if batch % ranks == 0]
        raise SettingsError(
            f"--resume {run_dir}: its global batch of {batch} clips cannot be shared equally by {world_size} ranks; "
            f"continue on {', '.join(map(str, fitting))} ranks, or start a new run with a global batch of "
            f"{f'{below} or ' if below else ''}{above}"
        )
    share = batch // world_size
    fitting_micro = max(size for size in range(1, min(micro_batch, share) + 1) if share % size == 0)
    sizes = {"train_micro_batch_size_per_gpu": fitting_micro, "gradient_accumulation_steps": share // fitting_micro}
    return config | sizes


def _newest_unfinished(runs_dir: Path, identity_at: IdentityAt) -> Path | None:
    """The run of this identity that was saved last and can be continued; where there is none, the log says why not that
    of another."""
    others: list[str] = []
    run_dirs = [path for path in runs_dir.iterdir() if os.path.isdir(path)] if is_dir(runs_dir) else []
    closed = sorted((run_dir for run_dir in run_dirs if _is_closed(run_dir)), reverse=True)
    points = [(run_dir, _newest_point(run_dir)) for run_dir in run_dirs if run_dir not in closed]
    saved = [(_written_s(point), run_dir.name, run_dir) for run_dir, point in points if point is not None]
    for *_, run_dir in sorted(saved, reverse=True):
        try:
            status = read_json(run_dir / "status.json")["status"]
            differing = [] if status == "finished" else differences(run_dir, identity_at)
        except (OSError, ValueError, KeyError, TypeError, CheckpointError, SettingsError):
            continue  # some other directory, or a run that was killed before it had written its settings
        if status == "finished":
            continue
        if not differing:
            return run_dir
        others.append(f"note: {run_dir} is unfinished, but {in_short(differing)}: not continued")
    others += [
        f"note: {run_dir} is another user's (number {run_dir.stat().st_uid}), and not open to this one: not continued"
        for run_dir in closed[:1]
    ]
    for line in others[:1]:
        log.info(line)
    return None


def _is_closed(run_dir: Path) -> bool:
    """Whether a run in a folder that several users share is another's, and this one may not write into it."""
    try:
        is_own = run_dir.stat().st_uid == os.geteuid()
    except OSError:
        return False
    as_effective = os.access in os.supports_effective_ids  # not on macOS
    return not is_own and not os.access(run_dir, os.W_OK | os.X_OK, effective_ids=as_effective)


def _identity_of(run_dir: Path) -> tuple[Identity, int]:
    """What makes a run what it is, and the number of ranks that started it."""
    try:
        settings, engine = read_yaml(run_dir / "run.yaml"), read_json(run_dir / "engine.json")
        environment = read_json(run_dir / "environment.json")
        identity = {**settings, "engine config": engine, "data fingerprint": environment["data_fingerprint"]}
        return identity, int(environment["world_size"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise CheckpointError(
            f"{run_dir}: cannot read what the run was made with ({reason_of(error)}); restore the file, or delete the "
            "folder and start afresh"
        ) from error


def differences(run_dir: Path, identity_at: IdentityAt) -> list[str]:
    """In what a run is another than what is asked for, a line each.

    Args:
        identity_at: as in `run_to_continue`.

    Raises:
        CheckpointError: the run does not say what it was made with.
    """
    old, world_size = _identity_of(run_dir)
    return [
        f"{name} was {_shown(old.get(name), value)}, now {_shown(value, old.get(name))}"
        for name, value in identity_at(world_size).items()
        if old.get(name) != value
    ]


def in_short(differing: list[str]) -> str:
    """The first of these differences, in one line."""
    more = f"; and {len(differing) - _MOST_TOLD} more" if differing[_MOST_TOLD:] else ""
    return f"{'; '.join(differing[:_MOST_TOLD])}{more}"


def _shown(value: Any, other: Any) -> Any:
    """`value`, without what it has in common with `other` where both are blocks of a config."""
    if isinstance(value, dict) and isinstance(other, dict):
        return {key: _shown(item, other.get(key)) for key, item in value.items() if item != other.get(key)}
    return value
