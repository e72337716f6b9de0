"""The composition root: from a command line to a trained model and what is drawn of it.

Everything is built here and handed on as values; no other module reads settings that are not its own.
"""

import contextlib
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic_core import to_jsonable_python
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import Dataset

from ds_trainer import distributed
from ds_trainer.batches import BatchLoader, ShardedSampler
from ds_trainer.checkpoint import load_checkpoint, load_model
from ds_trainer.command_line import load_settings
from ds_trainer.dry_run import describe_job, describe_plan
from ds_trainer.engine import build_engine
from ds_trainer.engine_config import load_engine_config, resolve_engine_config
from ds_trainer.environment import describe_environment, versions
from ds_trainer.errors import DataError, UserError, WriteError
from ds_trainer.loop import micro_step, train
from ds_trainer.plateau import build_plateau
from ds_trainer.progress import log, start_log
from ds_trainer.resume import run_to_continue
from ds_trainer.run_dir import Cadence, Run, new_run_dir
from ds_trainer.saving import load_resume_point
from ds_trainer.settings import RunSettings, identity
from ds_trainer.stopping import StopRequested, WantsStop, stop_requests
from ds_trainer.task import Task, load_task_type
from ds_trainer.validation import Metrics, validate

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

EXIT_USER_ERROR = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: not done, the same again may succeed
EngineConfig = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Job:
    """What `train` gets, built."""

    engine: "DeepSpeedEngine"
    plateau: ReduceLROnPlateau
    train_sampler: ShardedSampler
    train_dl: BatchLoader
    val_dl: BatchLoader
    num_parameters: int


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line asks for; return the exit status.

    0: done. 2: an error that the user can mend, told in its message. 75: stopped on request, at a resume point.
    """
    start_log()
    try:
        distributed.export_rank_variables()
        arguments = sys.argv[1:] if argv is None else argv
        run_job(load_settings(arguments, load_task_type))
        return 0
    except UserError as error:
        if distributed.is_master():
            for problem in error.problems:
                log.error(f"error: {problem}")
        return EXIT_USER_ERROR
    except StopRequested:
        return EXIT_STOPPED
    finally:
        distributed.leave()


def run_job(settings: RunSettings) -> Path | None:
    """Train, or continue training, and draw the diagnostics. Collective.

    Returns:
        The path of the best checkpoint on the master rank and None elsewhere.
    """
    start_log(settings.verbose)
    engine_config = resolve_engine_config(
        load_engine_config(settings.deepspeed_config),
        distributed.world_size(),
        distributed.device().type,
        _learning_rate_scale(settings.scale_learning_rate),
    )
    task = load_task_type(settings.task)(settings)
    for split, dataset in (("training", task.train_set), ("validation", task.val_set)):
        if _size(dataset) == 0:
            raise DataError(f"the {split} split is empty, expected at least one example")
    distributed.join(settings.stall_timeout_s)
    job = build_job(settings, task, engine_config)
    if settings.config is not None:
        log.info(f"recipe {settings.config}")
    for line in describe_job(task, job.train_sampler, engine_config, job.num_parameters):
        log.info(line)
    if settings.dry_run:
        for line in describe_plan(to_jsonable_python(settings), engine_config, job.num_parameters):
            log.info(line)
        _take_one_step(job, task)
        return None
    with stop_requests(settings.stop_after_minutes) as wants_stop:
        return _train(begin_run(settings, task, engine_config, job, wants_stop), settings, task, engine_config, job)


def _train(run: Run, settings: RunSettings, task: Task, engine_config: EngineConfig, job: Job) -> Path | None:
    """Train and draw; status.json says what became of it. Collective."""
    run.write_status("running")
    try:
        train(
            job.engine,
            task.objective,
            job.plateau,
            job.train_dl,
            job.val_dl,
            settings.num_epochs,
            run,
            job.train_sampler,
        )
        results = evaluate_best(run, task, engine_config)
    except StopRequested as stop:
        run.write_status("stopped", reason=str(stop), steps_done=run.steps_done)
        log.info(f"stopped by {stop} after step {run.steps_done}; the same command with --resume {run.dir} continues")
        raise
    except BaseException as error:
        with contextlib.suppress(WriteError):  # the disk may be what failed
            run.write_status("failed", reason=f"{type(error).__name__}: {error}"[:500])
        raise
    run.write_status("finished", best_epoch=run.best_epoch, best_val_loss=run.best_loss, results=results)
    return run.best_checkpoint


def build_job(settings: RunSettings, task: Task, engine_config: EngineConfig) -> Job:
    """Model, engine, plateau and batches. Collective."""
    micro_batch = engine_config["train_micro_batch_size_per_gpu"]
    torch.manual_seed(settings.seed)
    model = task.build_model()
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    engine = build_engine(model, engine_config, settings.verbose)
    accumulation = engine_config["gradient_accumulation_steps"]
    train_sampler = ShardedSampler(_size(task.train_set), micro_batch, accumulation, settings.seed)
    return Job(
        engine=engine,
        plateau=build_plateau(engine, settings.plateau_factor, settings.plateau_patience),
        train_sampler=train_sampler,
        train_dl=BatchLoader(task.train_set, train_sampler, task.prepare, task.collate, task.num_workers),
        val_dl=_in_order(task, task.val_set, micro_batch),
        num_parameters=num_parameters,
    )


def begin_run(
    settings: RunSettings, task: Task, engine_config: EngineConfig, job: Job, wants_stop: WantsStop = lambda: None
) -> Run:
    """A new run, or the one that `--resume` means, where it left off. Collective.

    Raises:
        CheckpointError: there is nothing to continue, and there must be.
        SettingsError: the run to continue was made with other settings.
    """
    plain_settings = to_jsonable_python(settings, exclude={"config", "resume"})
    same_run = {**identity(settings), "engine config": engine_config, "data fingerprint": task.fingerprint()}
    run_dir = distributed.agreed(lambda: run_to_continue(settings.resume, settings.runs_dir, same_run))
    is_continued = run_dir is not None
    if run_dir is None:
        run_dir = new_run_dir(settings.runs_dir, task.label())
    provenance = {
        "task": settings.task,
        "description": task.description(),
        "settings": plain_settings,
        "engine_config": engine_config,
        "versions": versions(),
    }
    cadence = Cadence(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(Cadence)})
    run = Run(run_dir, provenance, cadence, wants_stop)
    if is_continued:
        load_resume_point(job.engine, run, job.plateau)
        log.info(f"continuing {run.dir} after epoch {run.epochs_done}, step {run.steps_done}")
    else:
        log.info(f"run directory {run.dir}")
        environment = describe_environment(task.fingerprint())
        distributed.agreed(lambda: run.write_provenance(plain_settings, engine_config, environment))
    return run


def evaluate_best(run: Run, task: Task, engine_config: EngineConfig) -> dict[str, float]:
    """Score the best checkpoint, as a user of the file would, on the test split; draw the diagnostics. Collective.

    A task that holds nothing out is scored on its validation split, and the plots say so.
    """
    checkpoint = distributed.agreed(lambda: load_checkpoint(run.dir / "best.pth"))
    model = load_model(checkpoint).to(distributed.device())
    split, dataset = ("test", task.test_set) if task.test_set is not None else ("validation", task.val_set)
    metrics = validate(model, task.objective, _in_order(task, dataset, engine_config["train_micro_batch_size_per_gpu"]))
    results = {"loss": metrics.loss, **metrics.named}
    if distributed.is_master():
        run.record_test(split, metrics)
        _draw(run, task, metrics, f"{split} split, epoch {checkpoint['epoch'] + 1}", engine_config)
        shown = "".join(f"  {name} {value:.3f}" for name, value in results.items())
        log.info(f"{split} split, best checkpoint (epoch {checkpoint['epoch'] + 1}):{shown}")
        log.info(f"checkpoint {run.dir / 'best.pth'}\ndiagnostics {run.dir / 'diagnostics'}")
    return results


def _draw(run: Run, task: Task, metrics: Metrics, scored: str, engine_config: EngineConfig) -> None:
    from ds_trainer.diagnostics import draw_curves, visualize_metrics  # half a second that only the master needs

    out_dir, records = run.dir / "diagnostics", run.records()
    clipping = engine_config["gradient_clipping"] or None
    if task.class_names is None:
        draw_curves(out_dir, records, task.label(), clipping)
    else:
        visualize_metrics(out_dir, records, metrics.measures_NM, task.class_names, task.label(), scored, clipping)


def _take_one_step(job: Job, task: Task) -> None:
    job.engine.train()
    for batch in job.train_dl:
        loss = micro_step(job.engine, task.objective, batch) * batch.share
        if batch.ends_step:
            break
    job.engine.step()
    log.info(f"one step taken: loss {loss.item():.4f}; dry run ends here")


def _in_order(task: Task, dataset: Dataset[Any], micro_batch: int) -> BatchLoader:
    """Every example of a data set once, for validation."""
    sampler = ShardedSampler(_size(dataset), micro_batch)
    return BatchLoader(dataset, sampler, task.prepare, task.collate, task.num_workers)


def _size(dataset: Dataset[Any]) -> int:
    return len(dataset)  # type: ignore[arg-type]  # map-style, which torch's Dataset does not say


def _learning_rate_scale(rule: str) -> float:
    ranks = distributed.world_size()
    return {"none": 1.0, "sqrt": math.sqrt(ranks), "linear": float(ranks)}[rule]
