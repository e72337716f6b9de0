"""Runs as they lie on disk, read back to be compared."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ds_trainer.errors import DataError, looking_at
from ds_trainer.paths import exists, is_dir
from ds_trainer.plots.curves import History, Series
from ds_trainer.problems import reason_of
from ds_trainer.run.reading import read_json, read_yaml
from ds_trainer.run.records import Record, Records

CURVES = {
    "val_loss": "Validation loss",
    "train_loss": "Training loss",
    "top1": "Validation top-1",
    "macro_f1": "Validation macro-F1",
    "learning_rate": "Learning rate",
}
"""What is drawn of the epochs: names in metrics.jsonl, and titles."""

_MOST_EPOCHS = 2**31
_NOT_COMPARED = {"runs_dir", "stores_dir"}


@dataclass(frozen=True)
class PastRun:
    """A run of which there may be more to come.

    Args:
        settings: those of the run, of its engine and of what it ran on, flat: `engine.bf16.enabled`.
        reached: by name; `val` is the epoch of the best checkpoint, `test` that checkpoint (`validation` where nothing
            is held out for a test).
        curves: those of `CURVES`.
    """

    path: Path
    settings: Mapping[str, Any]
    reached: Mapping[str, Any]
    curves: Mapping[str, Series]

    @property
    def val_loss(self) -> float:
        """That of the best checkpoint; infinite where there is none."""
        loss = self.reached.get("val loss")
        return math.inf if loss is None else float(loss)


def find_runs(paths: Sequence[Path]) -> tuple[list[PastRun], list[str]]:
    """The runs at `paths`, and those in a folder of runs, or of a sweep; each once, in this order.

    Returns:
        Those that can be read, and what is wrong with others.

    Raises:
        DataError: none can be read.
    """
    found: dict[Path, PastRun] = {}
    problems: list[str] = []
    for path in paths:
        for run_dir in _runs_at(path, problems):
            try:
                if run_dir.resolve() not in found:
                    found[run_dir.resolve()] = _read(run_dir)
            except Exception as error:  # what somebody made up fails in many ways
                reason = f"no {error}" if isinstance(error, KeyError) else reason_of(error)
                problems.append(
                    f"{run_dir}: cannot be read as a run ({reason}), expected the files that training wrote, whole; "
                    "bring them back, or move it away"
                )
    if not found:
        raise DataError(problems)
    return list(found.values()), problems


def _runs_at(path: Path, problems: list[str]) -> list[Path]:
    """A run directory, or those in a folder of them, or in that of a sweep: seed_1/s03/RUN; `problems` grows."""
    num_before = len(problems)
    own = _runs_below(path, 3, problems)
    if not own and len(problems) == num_before:
        found = "found no run.yaml" if exists(path) else "missing"
        problems.append(f"{path}: {found}, expected a run, a folder of runs or a sweep; check the path")
    return own


def _runs_below(path: Path, num_folders: int, problems: list[str]) -> list[Path]:
    try:
        with looking_at(path, DataError):
            if exists(path / "run.yaml"):
                return [path]
            folders = sorted(below for below in path.iterdir() if is_dir(below)) if is_dir(path) else []
    except DataError as error:
        problems += error.problems
        return []
    return [run_dir for folder in folders if num_folders for run_dir in _runs_below(folder, num_folders - 1, problems)]


def _read(run_dir: Path) -> PastRun:
    def mapping(name: str, read: Callable[[Path], dict[str, Any]] = read_json) -> dict[str, Any]:
        try:
            return read(run_dir / name)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else reason_of(error)
            raise ValueError(f"{name}: {reason}") from error

    environment = mapping("environment.json")
    own = mapping("run.yaml", read_yaml)
    settings = {name: value for name, value in own.items() if name not in _NOT_COMPARED}
    ran_on = {name: environment[name] for name in ("commit", "world_size", "data_fingerprint")}
    ran_on |= {"device": environment["devices"].get("name"), **environment["versions"]}
    flat = {**dict(_flat(settings)), **dict(_flat(mapping("engine.json"), "engine.")), **ran_on}
    records = Records(run_dir / "metrics.jsonl").load()
    epochs = [record.get("epoch", 0) for record in records]
    if not all(type(epoch) is int and 0 <= epoch < _MOST_EPOCHS for epoch in epochs):
        raise ValueError("metrics.jsonl: found an epoch that is none")
    history = History(records)
    reached = _reached(mapping("status.json"), records, history)
    run = PastRun(run_dir, flat, reached, {name: history.of_epochs(name) for name in CURVES})
    float(run.val_loss)  # by which runs are compared
    return run


def _reached(status: Mapping[str, Any], records: Sequence[Record], history: History) -> dict[str, Any]:
    best = history.best_epoch()
    epochs = [record for record in records if record["kind"] == "epoch"]
    found: dict[str, Any] = {"status": status["status"], "epochs": history.num_epochs, "best epoch": best}
    for record in epochs:
        if record["epoch"] + 1 == best:
            found["train loss"], found["val loss"] = record["train_loss"], record["val_loss"]
            found |= {f"val {name}": record[name] for name in ("top1", "top5", "macro_f1") if name in record}
    scored = next((record["split"] for record in reversed(records) if record["kind"] == "test"), "test")
    found |= {f"{scored} {name}": value for name, value in status.get("results", {}).items()}
    if "calibration_error" in status:
        found["calibration error"] = status["calibration_error"]
    if epochs:
        found["seconds an epoch"] = statistics.median(record["seconds"] for record in epochs)
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def differing(runs: Sequence[PastRun]) -> dict[str, list[Any]]:
    """Settings that are not the same in all runs, by name, with the value of each run; None where it has none."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    table = {name: [run.settings.get(name) for run in runs] for name in names}
    return {name: values for name, values in table.items() if any(value != values[0] for value in values)}


def summaries(runs: Sequence[PastRun]) -> dict[str, list[Any]]:
    """What the runs have reached, by name, with the value of each run; None where it has none."""
    names = dict.fromkeys(name for run in runs for name in run.reached)
    return {name: [run.reached.get(name) for run in runs] for name in names}
