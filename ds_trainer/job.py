"""The composition root: from a command line to a trained model and what is drawn of it.

What `building.py` builds is handed on as values; no other module reads settings that are not its own.
"""

import contextlib
import faulthandler
import gc
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic_core import to_jsonable_python

from ds_trainer import distributed, gpu
from ds_trainer.building import EngineConfig, Job, build_job
from ds_trainer.command import tell_other_checkout
from ds_trainer.command_line import load_settings
from ds_trainer.dry_run import describe_plan, take_one_step
from ds_trainer.engine.config import load_engine_config, resolve_engine_config
from ds_trainer.engine.engine import released
from ds_trainer.engine.monitors import start_monitors
from ds_trainer.errors import EXIT_USER_ERROR, MeetingError, UserError, WriteError
from ds_trainer.evaluation import evaluate_best
from ds_trainer.heap import give_back_freed_memory
from ds_trainer.launched import (
    changed_arguments,
    refuse_changed_arguments,
    refuse_differing_ranks,
    refuse_other_world_size,
)
from ds_trainer.loop import train
from ds_trainer.openmp import short_waits_when_crowded
from ds_trainer.progress import end_log, log, start_log, tell_problems
from ds_trainer.rehearsal import rehearse
from ds_trainer.run.cadence import Cadence
from ds_trainer.run.claims import Claim, claims
from ds_trainer.run.environment import describe_environment, versions
from ds_trainer.run.new_dir import new_run_dir
from ds_trainer.run.resume import choose_run, refuse_lagging_master
from ds_trainer.run.run_dir import Run
from ds_trainer.run.saving import load_resume_point
from ds_trainer.settings import RunSettings
from ds_trainer.stopping import StopRequested, WantsStop, early_requests, stop_requests
from ds_trainer.task import Task, build_task, load_task_type
from ds_trainer.task_rules import refuse_unusable
from ds_trainer.torch_errors import mendable_errors_told
from ds_trainer.watch.watch import Watch
from ds_trainer.watch.whereabouts import stand_at

EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: not done, the same again may succeed


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line asks for; return the exit status.

    0: done. 1: a mistake in the program, with its traceback. 2: an error that the user can mend, told in its message.
    75: stopped on request, at a resume point. 76: another rank died or stalled (`watch`). Negative: a signal, such as
    that of a crash within a library; the Python stack of each thread is told.
    """
    start_log()
    tell_other_checkout()
    if not faulthandler.is_enabled():
        faulthandler.enable()
    try:
        train_in_process(sys.argv[1:] if argv is None else argv)
        return 0
    except UserError:
        return EXIT_USER_ERROR
    except StopRequested:
        return EXIT_STOPPED
    finally:
        end_log()  # a log that its disk did not take is no reason for another status


def train_in_process(argv: Sequence[str]) -> Path | None:
    """Do what the command line asks for, and leave the process as it was: it may train again. Collective.

    Returns:
        The path of the best checkpoint on the master rank; None elsewhere, and after a dry run.

    Raises:
        UserError: what the user can mend; it has been told in the log.
        StopRequested: stopped on request, at a resume point.
    """
    start_log()
    watch = Watch()
    failure: BaseException | None = None
    try:
        distributed.export_rank_variables()
        settings = load_settings(argv, load_task_type)
        with mendable_errors_told(), gpu.same_bits(), early_requests() as asked_early:
            return run_job(settings, watch, asked_early)
    except UserError as error:
        failure = error
        if distributed.is_master() or isinstance(error, MeetingError):
            tell_problems(dict.fromkeys([*changed_arguments(), *error.problems]))
        raise
    except StopRequested:
        raise
    except BaseException as error:
        failure = error
        watch.end_if_another_is_to_blame(error)
        raise
    finally:
        watch.leave(failure)
        gc.collect()  # the engine and all that it made, for a process that goes on
        gpu.release_memory()
        give_back_freed_memory()


def run_job(settings: RunSettings, watch: Watch, asked_early: WantsStop) -> Path | None:
    """Train, or continue training, and draw the diagnostics. Collective.

    Args:
        asked_early: tells why the run should stop, if that was asked before it began: it stops after its first step.

    Returns:
        The path of the best checkpoint on the master rank and None elsewhere.
    """
    start_log(settings.verbose)
    refuse_other_world_size(settings.expect_world_size, distributed.world_size())
    written_config = load_engine_config(settings.deepspeed_config)

    def engine_config_at(ranks: int) -> EngineConfig:
        scale = {"none": 1.0, "sqrt": math.sqrt(ranks), "linear": float(ranks)}[settings.scale_learning_rate]
        return resolve_engine_config(
            written_config, ranks, distributed.device().type, scale, source=str(settings.deepspeed_config)
        )

    if settings.resume == "never":
        engine_config_at(distributed.world_size())  # a mistake in it is told before any data is read
    watch.join(settings.stall_timeout_s, settings.start_timeout_s)
    refuse_changed_arguments()
    task = _built_task(settings)
    stand_at("building the engine")
    run_dir, engine_config = distributed.agreed(lambda: choose_run(settings, task, engine_config_at))
    if settings.resume == "auto":
        refuse_lagging_master(run_dir, lambda: choose_run(settings, task, engine_config_at)[0])
    job = build_job(settings, task, engine_config, settings.pretrained if run_dir is None else None)
    if settings.config is not None:
        log.info(f"recipe {settings.config}")
    for line in job.described:
        log.info(line)
    with released(job.engine), short_waits_when_crowded():
        rehearse(job.engine, task, job.val_dl.sampler.micro_batch, settings.compile)
        if settings.dry_run:
            _dry_run(settings, task, engine_config, job)
            return None
        with stop_requests(settings.stop_after_minutes, asked_early) as wants_stop, claims() as claim:
            run = begin_run(settings, task, engine_config, job, run_dir, wants_stop, claim)
            watch.on_end = run.write_failure
            return _train(run, settings, task, engine_config, job)


def _built_task(settings: RunSettings) -> Task:
    """The task with its data, the same on all ranks. Collective."""
    stand_at("reading the data")
    task = build_task(load_task_type(settings.task), settings)
    refuse_unusable(task)
    refuse_differing_ranks(settings, task)
    return task


def _dry_run(settings: RunSettings, task: Task, engine_config: EngineConfig, job: Job) -> None:
    """All of a dry run that others are without. Collective."""
    for line in describe_plan(to_jsonable_python(settings), engine_config, job.num_parameters):
        log.info(line)
    take_one_step(job.engine, task.objective, job.train_dl)


def _train(run: Run, settings: RunSettings, task: Task, engine_config: EngineConfig, job: Job) -> Path | None:
    """Train and draw; status.json says what became of it. Collective."""
    run.write_status("running")
    try:
        with mendable_errors_told():  # here, too, so that status.json says it alike
            train(job.engine, task.objective, job.plateau, job.train_dl, job.val_dl, settings.num_epochs, run)
            results = evaluate_best(run, task, engine_config)
    except StopRequested as stop:
        run.write_status("stopped", reason=str(stop), steps_done=run.steps_done)
        log.info(f"stopped by {stop} after step {run.steps_done}; the same command with --resume {run.dir} continues")
        raise
    except BaseException as error:
        with contextlib.suppress(WriteError):  # the disk may be what failed
            run.write_status("failed", reason=f"{type(error).__name__}: {error}"[:500])
        raise
    run.write_status("finished", best_epoch=run.best_epoch, best_val_loss=run.best_loss, **results.plain())
    return run.best_checkpoint


def begin_run(
    settings: RunSettings,
    task: Task,
    engine_config: EngineConfig,
    job: Job,
    run_dir: Path | None = None,
    wants_stop: WantsStop = lambda: None,
    claim: Claim = lambda run_dir: None,
) -> Run:
    """A new run, or the one in `run_dir`, where it left off. Collective.

    Raises:
        CheckpointError: it has no resume point that is whole.
        SettingsError: another job trains there.
    """
    is_continued = run_dir is not None
    if run_dir is None:
        run_dir = new_run_dir(settings.runs_dir, task.label())
    claim(run_dir)
    plain_settings = to_jsonable_python(settings, exclude={"config", "resume"})
    provenance = {
        "task": settings.task,
        "description": task.description(),
        "settings": plain_settings,
        "engine_config": engine_config,
        "data_fingerprint": task.fingerprint(),
        "versions": versions(),
    }
    run = Run(run_dir, provenance, Cadence.of(settings), wants_stop, job.utilisation)
    run.records.pass_on = start_monitors(engine_config, run_dir)
    environment = {"job": job.described, **describe_environment(task.fingerprint())}
    if is_continued:
        load_resume_point(job.engine, run, job.plateau)
        log.info(f"continuing {run.dir} after epoch {run.epochs_done}, step {run.steps_done}")
        distributed.agreed(lambda: run.note_continuation(plain_settings, environment))
    else:
        log.info(f"run directory {run.dir}")
        distributed.agreed(lambda: run.write_provenance(plain_settings, engine_config, environment))
    return run
