"""What stands in a run directory: how far it came, what it can continue from, what lies half done."""

import json
from pathlib import Path

from ds_trainer.errors import CheckpointError
from ds_trainer.files import aside_of
from ds_trainer.run.resume_points import read_resume_point, resume_points

Asides = dict[str, tuple[int, int, int]]
"""Files that were being written: their path in the run directory, and what tells one file from another of that name."""

_TAIL_BYTES = 4096
_ASIDE_PATTERNS = ("resume/.aside", "resume/.aside/*", "resume/.aside/.*", ".*.*")


def last_step(run_dir: Path) -> int:
    """The last step in the record, which has a line for each; 0 before the first."""
    try:
        with (run_dir / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]  # the last may be cut off
    except FileNotFoundError:
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError):
            continue
    return 0


def step_of(point: Path) -> int:
    """The step after which a resume point was taken, by its name."""
    return int(point.name.rsplit("_", 1)[1])


def whole_points(run_dir: Path) -> list[Path]:
    """The resume points that verify, oldest first."""
    return [point for point in resume_points(run_dir / "resume") if is_whole(point)]


def is_whole(point: Path) -> bool:
    """Whether a resume point verifies."""
    try:
        read_resume_point(point)
    except CheckpointError:
        return False
    return True


def status_of(run_dir: Path) -> dict[str, object]:
    """What status.json says."""
    status: dict[str, object] = json.loads((run_dir / "status.json").read_text(encoding="utf-8"))
    return status


def asides(runs_dir: Path) -> Asides:
    """What lies half done in the run directories."""
    found: Asides = {}
    for run_dir in runs_dir.glob("*/"):
        for pattern in _ASIDE_PATTERNS:
            for path in run_dir.glob(pattern):
                try:
                    stat = path.stat()
                except FileNotFoundError:
                    continue
                found[str(path.relative_to(run_dir))] = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
    return found


def part_of(left: Asides) -> str | None:
    """How far the writing had come of which something is left; None if nothing was being written."""
    names = {Path(path).stem if path[-1].isdigit() else path for path in left}  # without the process
    if "resume/.aside" in names:
        parts = {
            "resume/.aside/manifest.json": "resume point all but its name",
            _aside_name("manifest.json"): "manifest in part",
            "resume/.aside/state.pt": "state.pt without manifest",
            _aside_name("state.pt"): "state.pt in part",
        }
        return next((part for name, part in parts.items() if name in names), "resume point empty")
    return "best.pth" if _aside_name("best.pth") in names else next(iter(sorted(names)), None)


def _aside_name(name: str) -> str:
    return aside_of(Path(name)).stem
