"""One rank of a run whose number of ranks changes: continues it for an epoch, after a look at what was loaded.

world_size_worker.py OUT SESSION      SESSION 0 begins the runs; rank 0 appends to OUT/sessions.jsonl
"""

import errno
import itertools
import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from cadences import cadence
from torch import Tensor

from ds_trainer import distributed
from ds_trainer.engine.state import engine_state
from ds_trainer.errors import WriteError
from ds_trainer.progress import start_log
from ds_trainer.run.resume_points import newest_resume_point
from ds_trainer.run.run_dir import Run
from ds_trainer.run.saving import load_resume_point
from numerics.worker import GLOBAL_BATCH, Case


def tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    moments = {f"{moment} {name}": value for moment, own in state["moments"].items() for name, value in own.items()}
    return {**state["weights"], **moments}


def differing(run: Run, loaded: dict[str, Any]) -> list[str]:
    """What was not loaded as it was saved; on the master."""
    _, saved = newest_resume_point(run.dir / "resume")
    ours, theirs = tensors(loaded), tensors(saved["engine"])
    assert ours.keys() == theirs.keys()
    names = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    return names + [key for key in ("scalars", "counters", "learning_rates") if loaded[key] != saved["engine"][key]]


def is_refused(run: Run) -> bool:
    """Whether this rank hears that the disk was full when the run went back to its record."""
    try:
        with mock.patch("os.replace", side_effect=OSError(errno.ENOSPC, "No space left on device")):
            run.load_state_dict(run.state_dict())
    except WriteError:
        return True
    return False


def continue_run(run_dir: Path, precision: str, stage: int, session: int) -> dict[str, Any]:
    case = Case(precision, stage, micro_batch=GLOBAL_BATCH // distributed.world_size())
    run = Run(run_dir, {"task": "toy", "description": {}, "settings": {}, "engine_config": {}}, cadence())
    names: list[str] = []
    if session == 0 and distributed.is_master():
        run_dir.mkdir()
    if session > 0:
        load_resume_point(case.job.engine, run, case.job.plateau)
        loaded = engine_state(case.job.engine)
        names = differing(run, loaded) if distributed.is_master() else []
    case.train(run, session + 1)
    refused = distributed.gathered(is_refused(run))
    state = engine_state(case.job.engine)
    moments = [value for own in state.get("moments", {}).values() for value in own.values()]
    largest = max((float(moment.abs().max()) for moment in moments), default=0.0)
    outcome = {"case": run_dir.name, "differing": names, "largest moment": largest, "val_loss": run.best_loss}
    return outcome | {"all heard of the full disk": all(refused)}


def main(out: Path, session: int) -> None:
    distributed.join(120)
    start_log()
    for precision, stage in itertools.product(("fp32", "bf16"), (0, 1, 2, 3)):
        outcome = continue_run(out / f"{precision}-{stage}", precision, stage, session)
        if distributed.is_master():
            with (out / "sessions.jsonl").open("a") as file:
                file.write(json.dumps(outcome) + "\n")
    distributed.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
