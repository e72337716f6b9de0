"""What a run comes to, and in what two ends differ: to the last bit, but for what names places and times."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ds_trainer.checkpoint import load_checkpoint
from ds_trainer.run.resume_points import newest_resume_point

_MEASURED = ("seconds", "examples_per_second")
_MOST_SHOWN = 4


@dataclass(frozen=True)
class End:
    """The last resume point, the best checkpoint and the record of a run that is finished."""

    state: dict[str, Any]
    best: dict[str, Any]
    records: list[dict[str, Any]]


def end_of(run_dir: Path) -> End:
    """What stands in a run directory.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    _, state = newest_resume_point(run_dir / "resume")
    state["run"].pop("unwritten_records", None)  # those of a disk that was full; in the file by now
    best = load_checkpoint(run_dir / "best.pth")
    best["settings"].pop("runs_dir", None)
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [{name: value for name, value in json.loads(line).items() if name not in _MEASURED} for line in lines]
    return End(state, best, records)


def differences(found: End, expected: End) -> list[str]:
    """One line for each value that is not the same to the last bit; the first few."""
    lines = []
    for part in ("state", "best", "records"):
        ours, theirs = (dict(_leaves(getattr(end, part), part)) for end in (found, expected))
        lines += [f"{name}: only in one of them" for name in sorted(ours.keys() ^ theirs.keys())]
        lines += [
            f"{name}: {_shown(ours[name])}, uninterrupted {_shown(theirs[name])}"
            for name in ours.keys() & theirs.keys()
            if not _is_same(ours[name], theirs[name])
        ]
    return lines[:_MOST_SHOWN] + ([f"and {len(lines) - _MOST_SHOWN} more"] if len(lines) > _MOST_SHOWN else [])


def largest_difference(found: End, expected: End) -> float:
    """Between two weights of the last resume points."""
    ours, theirs = (end.state["engine"]["weights"] for end in (found, expected))
    return max(float((ours[name] - theirs[name]).abs().max()) for name in theirs)


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{name}[{index}]")
    else:
        yield name, value


def _is_same(one: Any, other: Any) -> bool:
    if torch.is_tensor(one) and torch.is_tensor(other):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        return torch.equal(*(value.contiguous().reshape(-1).view(torch.uint8) for value in (one, other)))
    return type(one) is type(other) and repr(one) == repr(other)  # repr: NaN is NaN, and 0.0 is not -0.0


def _shown(value: Any) -> str:
    return f"tensor of sum {float(value.double().sum())!r}" if torch.is_tensor(value) else repr(value)[:80]
