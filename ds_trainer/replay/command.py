"""Replay of a bad batch: which clip, which module and which direction made a loss or gradient NaN or infinite.

`python launch/replay.py RUN/bad_batches/step_00000123` runs the micro-steps of a step that training skipped again, on
one process: the same examples, augmentation, dropout and precision, with the weights that were saved beside them.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ds_trainer import gpu
from ds_trainer.batches import BatchLoader, size_of
from ds_trainer.command import command
from ds_trainer.distributed import device
from ds_trainer.dry_run import precision as precision_in_words
from ds_trainer.errors import DataError, SettingsError, UserError
from ds_trainer.passes import passed_enough
from ds_trainer.problems import exact, shown
from ds_trainer.progress import log
from ds_trainer.replay.case import Case, ClipLooks
from ds_trainer.replay.files import (
    SavedMicroStep,
    SavedModel,
    SavedStep,
    load_saved_model,
    load_saved_step,
)
from ds_trainer.replay.remedies import NORM_REMEDY, remedies, why_nothing
from ds_trainer.replay.report import case_lines, counted, repeated_line
from ds_trainer.replay.run import Finding, Precision, Replica, looks_at_clip, run_micro_step, saved_batches
from ds_trainer.run.environment import SavedEnvironment, elsewhere, load_environment, versions
from ds_trainer.task import Task, build_task
from ds_trainer.text_file import is_plain

_MOST_REPEATED = 8
"""Micro-steps told of that began where another did: when the weights are bad, all are."""

_MOST_REMEDIES = 6


@dataclass(frozen=True)
class _Stage:
    """What the micro-steps of a step are run with."""

    step: SavedStep
    saved: SavedModel
    task: Task
    precision: Precision
    replica: Replica
    bad_weights: list[str]


def replay(folder: Path, number: int | None = None, own_task: str | None = None) -> list[str]:
    """The lines of the report on the bad batch in `folder`.

    Args:
        number: of the micro-steps to run; None: those whose loss was not finite, or all, where each was.
        own_task: the `module:Class` that may be imported.

    Raises:
        CheckpointError: the files are missing or damaged.
        DataError: the data is missing, damaged, or too small.
        SettingsError: there is no such micro-step or task.
    """
    step = load_saved_step(folder)
    chosen = _chosen(step, number)
    environment = load_environment(folder)
    stage = _build_stage(folder, step, environment, own_task)
    machine_notes = _machine_notes(environment)
    notes = [*_data_notes(step, stage.task, environment), *machine_notes]
    lines = [*_title_lines(folder, stage), *(f"  note: {note}" for note in notes)]
    cases = [_run(stage, micro_step) for micro_step in chosen]
    if any(case.cause != "none" for case in cases):
        return lines + _bad_lines([case for case in cases if case.cause != "none"])
    lines += [line for case in cases for line in case_lines(case)]
    is_all = len(chosen) == len(step.micro_steps)
    norm = stage.replica.gradient_norm() / step.world_size
    if is_all and not math.isfinite(norm):
        lines.append("every gradient is finite, but not the norm of the step's gradient")
        return [*lines, "what to do:", f"  - {NORM_REMEDY}"]
    lines.append(
        "nothing was NaN or infinite this time" + (f"; the norm of the gradient: {norm:.4g}" if is_all else "")
    )
    reasons = why_nothing(step, number is not None, bool(machine_notes), stage.precision.short_name == "float16")
    return [*lines, "likely reasons:", *(f"  - {reason}" for reason in reasons)]


def _build_stage(folder: Path, step: SavedStep, environment: SavedEnvironment | None, own_task: str | None) -> _Stage:
    try:
        saved = load_saved_model(folder, own_task)
        task = build_task(saved.task_type, saved.settings)
        task.train_set = passed_enough(task.train_set, saved.settings.min_epoch_clips)
    except UserError as error:
        raise type(error)(error.problems + elsewhere(environment, "replay")) from error
    precision = Precision.of(saved.engine_config)
    replica = Replica(saved.build(), precision)
    return _Stage(step, saved, task, precision, replica, replica.bad_weights())


def _bad_lines(cases: list[Case]) -> list[str]:
    """The first that began at each place in full, the others in a line, and what to do about them."""
    firsts: dict[tuple[str, ...], Case] = {}
    lines, advice, num_repeated = [], dict[str, None](), 0
    for case in cases:
        advice |= dict.fromkeys(remedies(case))
        if firsts.setdefault(case.beginning, case) is case:
            lines += case_lines(case)
        else:
            num_repeated += 1
            lines += [repeated_line(case)] if num_repeated <= _MOST_REPEATED else []
    if num_repeated > _MOST_REPEATED:
        lines.append(f"... and {counted(num_repeated - _MOST_REPEATED, 'micro-step')} more")
    return [*lines, "what to do:", *(f"  - {remedy}" for remedy in list(advice)[:_MOST_REMEDIES])]


def _chosen(step: SavedStep, number: int | None) -> tuple[SavedMicroStep, ...]:
    if number is None:
        return step.suspects
    chosen = tuple(micro_step for micro_step in step.micro_steps if micro_step.number == number)
    if not chosen:
        known = sorted({micro_step.number for micro_step in step.micro_steps})
        raise SettingsError(f"--micro_step: found {number}, expected one of {', '.join(map(str, known))}")
    return chosen


def _data_notes(step: SavedStep, task: Task, environment: SavedEnvironment | None) -> list[str]:
    """Where the data is not what it was."""
    num_examples = size_of(task.train_set)
    notes = []
    if environment is None:
        notes.append("no environment.json above the folder: whether the data is what it was cannot be told for sure")
    elif environment.data_fingerprint != task.fingerprint():
        notes.append("the data is not what it was (another fingerprint)")
    for micro_step in step.micro_steps:
        if max(micro_step.indices) >= num_examples:
            raise DataError(
                f"the bad batch has clip number {max(micro_step.indices)}, and the training split only "
                f"{counted(num_examples, 'clip')}; bring back the data that the run was started with"
            )
        name_of = saved_batches(task, step, micro_step).name_of
        pairs = zip(micro_step.indices, micro_step.names, strict=False)
        changed = [(index, name, name_of(index)) for index, name in pairs if name_of(index) != name]
        if changed:
            index, before, now = changed[0]
            notes.append(
                f"{counted(len(changed), 'clip')} of micro-step {micro_step.number} of rank {micro_step.rank} changed: "
                f"number {index} was {exact(before)}, is now {exact(now)}"
            )
    return notes


def _machine_notes(environment: SavedEnvironment | None) -> list[str]:
    """Where this machine may round otherwise."""
    if environment is None:
        return []
    now, before = versions(), environment.versions
    notes = [
        f"{name} was {before[name]}, is now {now[name]}" for name in now if before.get(name, now[name]) != now[name]
    ]
    if environment.devices.type != device().type:
        notes.append(f"trained on {exact(environment.devices.type)}, replayed on {device().type}")
    return notes


def _title_lines(folder: Path, stage: _Stage) -> list[str]:
    step = stage.step
    updates = f", {counted(step.num_updates_since, 'update')} later" if step.num_updates_since else ""
    ranks = counted(step.world_size, "rank")
    return [
        f"bad batch of step {step.step}, epoch {step.epoch + 1}: {folder}",
        f"  {ranks}, seed {step.seed}, {precision_in_words(stage.saved.engine_config)} on {device().type}; "
        f"weights as they were after step {step.noticed_after_step}{updates}",
    ]


def _run(stage: _Stage, micro_step: SavedMicroStep) -> Case:
    def run_with(replica: Replica) -> Finding:  # with a batch of its own: a model may work in place
        (batch,) = saved_batches(stage.task, stage.step, micro_step)
        return run_micro_step(replica, stage.task.objective, batch, micro_step)

    clips = _clip_looks(saved_batches(stage.task, stage.step, micro_step))
    finding, in_float32 = run_with(stage.replica), None
    if stage.precision.has_16_bits and not finding.is_finite:
        in_float32 = run_with(Replica(stage.saved.build(), Precision()))
    case = Case(micro_step, finding, clips, stage.bad_weights, in_float32, stage.precision.short_name)
    if case.cause != "inputs":
        return case
    as_read = _clip_looks(saved_batches(stage.task, stage.step, micro_step, is_augmented=False))
    return replace(case, is_bad_as_read=any(as_read[place].is_bad for place in case.origins or []))


def _clip_looks(batches: BatchLoader) -> list[ClipLooks]:
    (batch,) = batches
    return [ClipLooks(*looks_at_clip(batch, place)) for place in range(len(batch.index_B))]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command line of launch/replay.py.

    Returns:
        The exit status: 0, or 2 for what the user can mend.
    """
    parser = argparse.ArgumentParser(
        prog="launch/replay.py", description="Run a batch that made NaN again, and tell what went bad first."
    )
    parser.add_argument("folder", type=Path, metavar="PATH", help="RUN/bad_batches/step_00000123")
    parser.add_argument(
        "--micro_step", type=int, metavar="N", help="the one to run; default: those whose loss was not finite, or all"
    )
    parser.add_argument("--task", metavar="NAME", help="module:Class, if the run was of a task of your own")
    arguments = parser.parse_args(argv)
    if not is_plain(str(arguments.folder)):
        raise SettingsError(f"found {shown(str(arguments.folder))}; expected the path of a bad batch")
    with gpu.same_bits():  # on a GPU as training computed
        lines = replay(arguments.folder, arguments.micro_step, arguments.task)
    for line in lines:
        log.info(line)
    return 0
