"""The command line of launch/evaluate.py: a trained model on data, the same numbers on any number of ranks."""

import argparse
import json
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import nn
from torch.utils.data import Dataset

from ds_trainer import distributed, gpu
from ds_trainer.batches import size_of
from ds_trainer.checkpoint import task_type_of
from ds_trainer.command import command
from ds_trainer.command_line import load_settings
from ds_trainer.errors import (
    EXIT_USER_ERROR,
    CheckpointError,
    MeetingError,
    MemoryLimitError,
    SettingsError,
    UserError,
)
from ds_trainer.evaluation import model_to_score, score, tell
from ds_trainer.files import write_json
from ds_trainer.openmp import short_waits_when_crowded
from ds_trainer.pretrained import adapted_to, before
from ds_trainer.problems import shown
from ds_trainer.progress import log, start_log, tell_problems
from ds_trainer.run.environment import elsewhere, load_environment
from ds_trainer.source import Checkpoint, load_source, uncalibrated
from ds_trainer.task import Task, build_task, load_task_type, splits_of
from ds_trainer.torch_errors import mendable_errors_told

_TIMEOUT_S = 600.0
_MICRO_BATCH = "train_micro_batch_size_per_gpu"

T = TypeVar("T")


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate; return the exit status: 0, or 2 for what the user can mend. Collective."""
    try:
        distributed.export_rank_variables()
        own, flags = _parser().parse_known_args(sys.argv[1:] if argv is None else argv)
        start_log()  # once more, now that it is known which rank is the master
        with mendable_errors_told(out_of_memory="give a smaller --micro_batch"), gpu.same_bits():
            distributed.join(_TIMEOUT_S)
            with short_waits_when_crowded():
                results = _evaluate(own, flags)
        if own.json is not None:
            distributed.agreed(lambda: write_json(own.json, results))
        return 0
    except UserError as error:
        if distributed.is_master() or isinstance(error, MeetingError | MemoryLimitError):  # which other ranks lack
            tell_problems(error.problems)
        return EXIT_USER_ERROR
    finally:
        distributed.leave()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launch/evaluate.py",
        description="Score a trained model. Data, split and all other settings are those that it was trained with, "
        "unless flags of launch/train.py, such as --data and --split, say otherwise.",
        allow_abbrev=False,
    )
    parser.add_argument("checkpoint", type=Path, help="a run directory (its best checkpoint), or a .pth")
    parser.add_argument("--task", help="the task of the checkpoint, if it is one of your own: module:Class")
    parser.add_argument("--on", choices=["test", "val", "train"], default="test", help="what to score (default: test)")
    parser.add_argument(
        "--adapt",
        action="store_true",
        help="score each signer's (or other group's) examples by models adapted to its other half, without labels",
    )
    parser.add_argument("--micro_batch", type=int, metavar="N", help="examples at once (default: as in training)")
    parser.add_argument("--json", type=Path, help="also write the results, by group too, to this file")
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)
    return parser


def _evaluate(own: argparse.Namespace, flags: Sequence[str]) -> dict[str, Any]:
    if own.micro_batch is not None and own.micro_batch < 1:
        raise SettingsError(f"--micro_batch: found {own.micro_batch}, expected 1 or more")
    checkpoint = distributed.agreed(lambda: load_source(own.checkpoint, own.task))
    task, dataset, model = _agreed_by_all(lambda: _built(own, flags, checkpoint))
    told = distributed.agreed(lambda: _must_be_told(task, dataset, checkpoint, own.adapt))
    temperature = None
    if task.class_names is not None:
        temperature = checkpoint.get("temperature", 1.0)
        told += uncalibrated(checkpoint)
    micro_batch = own.micro_batch or checkpoint["engine_config"].get(_MICRO_BATCH)
    if not isinstance(micro_batch, int) or micro_batch < 1:
        raise CheckpointError(
            f"{own.checkpoint}: engine_config: {_MICRO_BATCH}: found {shown(micro_batch)}, expected 1 or more; give "
            "--micro_batch"
        )
    _, results = score(model, task, dataset, micro_batch, temperature, own.adapt)
    if distributed.is_master():
        for notice in task.notices:
            log.info(f"note: {notice}")
        num_all = sum(map(size_of, splits_of(task).values()))
        scored = f"epoch {checkpoint['epoch'] + 1}, {size_of(dataset)} of {num_all} examples"
        about = "; ".join([scored, *told])
        tell(results, f"{own.on} split of {own.checkpoint} ({about})")
        for group, named in results.by_group.items():
            log.info(f"  {group}:" + "".join(f"  {name} {_shown(value)}" for name, value in named.items()))
    return {**results.plain(), "notes": told}


def _built(
    own: argparse.Namespace, flags: Sequence[str], checkpoint: Checkpoint
) -> tuple[Task, Dataset[Any], nn.Module]:
    """The checkpoint's task, the data set to score, and the model."""
    task_type = task_type_of(checkpoint, own.task, own.checkpoint)
    flags = [*flags, "--task", checkpoint["task"]]
    settings = load_settings(flags, load_task_type, checkpoint["settings"])
    try:
        task = build_task(task_type, settings)
    except UserError as error:
        raise type(error)(error.problems + elsewhere(load_environment(own.checkpoint), "evaluation")) from error
    task.number_as_in(checkpoint["description"])
    _refuse_other_data(task, checkpoint["description"])
    dataset: Dataset[Any] | None = getattr(task, f"{own.on}_set")
    if dataset is None or size_of(dataset) == 0:
        raise SettingsError(
            f"--on {own.on}: --split, or the task, leaves nothing for it; choose another --on, or another --split"
        )
    return task, dataset, model_to_score(checkpoint)


def _agreed_by_all(build: Callable[[], T]) -> T:
    """What `build` returns on this rank; what the user can mend on any of them is raised on all. Collective."""
    built: list[T] = []
    own: list[str] = []
    try:
        built.append(build())
    except UserError as error:
        own = error.problems
    (_, of_master), *others = distributed.gathered((socket.gethostname(), own))
    problems = of_master + [
        f"rank {number} on {host}: {problem}"
        for number, (host, of_rank) in enumerate(others, start=1)
        for problem in of_rank
        if problem not in of_master
    ]
    if problems:
        raise UserError(problems)
    return built[0]


def _shown(value: float) -> str:
    return f"{value}" if isinstance(value, int) else f"{value:.3f}"


def _must_be_told(task: Task, dataset: Dataset[Any], checkpoint: Checkpoint, adapts: bool) -> list[str]:
    """What makes the scores other than those of the training's model on unseen examples of its data."""
    own = task.fingerprint()
    told = [] if checkpoint.get("data_fingerprint") in (None, "", own) else ["the data is not that of the training"]
    known = [checkpoint, *before(checkpoint)]
    if num_adapted := adapted_to(known):
        told.append(f"the model, or one it began with, was adapted to {num_adapted} examples, which may be among these")
    if adapts and task.class_names is None:
        raise SettingsError("--adapt: the task has no classes, expected one that has; leave it out")
    if adapts:
        told.append("each half of a signer's examples, or another group's, by a model adapted to the other half")
    return told + task.check_scored(dataset, known)


def _refuse_other_data(task: Task, trained: dict[str, Any]) -> None:
    """Raise unless the task's data means the same to the model as what it was trained on."""
    found = json.loads(json.dumps(task.description()))
    differing = [name for name, value in json.loads(json.dumps(trained)).items() if found.get(name) != value]
    if differing:
        name = differing[0]
        raise CheckpointError(
            f"{name}: found {str(found.get(name))[:200]} in the data and settings, expected {str(trained[name])[:200]} "
            "as the model was trained with; evaluate it on data of the same signs and keypoints"
        )


if __name__ == "__main__":
    sys.exit(main())
