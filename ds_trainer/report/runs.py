"""Runs as they lie on disk, read back to be compared."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ds_trainer.errors import DataError, looking_at
from ds_trainer.plots.curves import History
from ds_trainer.run.records import Records

_NOT_COMPARED = {"runs_dir", "stores_dir", "resume", "config"}


@dataclass(frozen=True)
class PastRun:
    """A run of which there may be more to come.

    Args:
        settings: those of the run, of its engine and of what it ran on, flat: `engine.bf16.enabled`.
        records: the lines of metrics.jsonl.
    """

    path: Path
    settings: Mapping[str, Any]
    status: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]

    @functools.cached_property
    def history(self) -> History:
        """Its epochs as curves."""
        return History(self.records)

    def summary(self) -> dict[str, Any]:
        """What it has reached, by name: `val` is the epoch of the best checkpoint, `test` that checkpoint."""
        history = self.history
        best = history.best_epoch()
        epochs = [record for record in self.records if record["kind"] == "epoch"]
        found: dict[str, Any] = {"status": self.status["status"], "epochs": history.num_epochs, "best epoch": best}
        for record in epochs:
            if record["epoch"] + 1 == best:
                found["train loss"], found["val loss"] = record["train_loss"], record["val_loss"]
                found |= {f"val {name}": record[name] for name in ("top1", "top5", "macro_f1") if name in record}
        found |= {f"test {name}": value for name, value in self.status.get("results", {}).items()}
        if "calibration_error" in self.status:
            found["calibration error"] = self.status["calibration_error"]
        if epochs:
            seconds = sorted(record["seconds"] for record in epochs)
            found["seconds an epoch"] = seconds[len(seconds) // 2]
        return found


def find_runs(paths: Sequence[Path]) -> list[PastRun]:
    """The runs at `paths`, and those in a folder of runs, or of a sweep; each once, in this order.

    Raises:
        DataError: there is no run, or one cannot be read.
    """
    found: dict[Path, PastRun] = {}
    problems = []
    for path in paths:
        try:
            own = _runs_at(path)
        except DataError as error:
            problems += error.problems
            continue
        for run_dir in own:
            try:
                if run_dir.resolve() not in found:
                    found[run_dir.resolve()] = _read(run_dir)
            except (OSError, ValueError, KeyError, yaml.YAMLError) as error:
                problems.append(f"{run_dir}: cannot be read as a run ({error}); a run that has begun is whole")
    if problems:
        raise DataError(problems)
    return list(found.values())


def _runs_at(path: Path) -> list[Path]:
    """A run directory, or those in a folder of them, or in that of a sweep: seed_1/s03/RUN."""
    own = _runs_below(path, num_folders=3)
    if not own:
        found = "found no run.yaml" if path.exists() else "missing"
        raise DataError(f"{path}: {found}, expected a run, a folder of runs or a sweep; check the path")
    return own


def _runs_below(path: Path, num_folders: int) -> list[Path]:
    with looking_at(path, DataError):
        if (path / "run.yaml").exists():
            return [path]
        folders = sorted(below for below in path.iterdir() if below.is_dir()) if path.is_dir() else []
    return [run_dir for folder in folders if num_folders for run_dir in _runs_below(folder, num_folders - 1)]


def _read(run_dir: Path) -> PastRun:
    def read_json(name: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((run_dir / name).read_text(encoding="utf-8"))
        return value

    environment = read_json("environment.json")
    own = yaml.safe_load((run_dir / "run.yaml").read_text(encoding="utf-8"))
    settings = {name: value for name, value in own.items() if name not in _NOT_COMPARED}
    ran_on = {name: environment[name] for name in ("commit", "world_size", "data_fingerprint")}
    ran_on |= {"device": environment["devices"].get("name"), **environment["versions"]}
    flat = {**dict(_flat(settings)), **dict(_flat(read_json("engine.json"), "engine.")), **ran_on}
    return PastRun(run_dir, flat, read_json("status.json"), Records(run_dir / "metrics.jsonl").load())


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
    found = [run.summary() for run in runs]
    names = dict.fromkeys(name for summary in found for name in summary)
    return {name: [summary.get(name) for summary in found] for name in names}
