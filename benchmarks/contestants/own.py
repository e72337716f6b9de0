"""ds_trainer as `launch/train.py` runs it: the watch, the engine, the run directory, the loop."""

import tempfile
from pathlib import Path

from benchmarks.case import Case
from benchmarks.case_writer import settings_of
from benchmarks.pace import AfterStep, Totals, nothing_learned, wait_for_device
from ds_trainer import distributed
from ds_trainer.batches import BatchLoader, ShardedSampler, size_of
from ds_trainer.building import build_job
from ds_trainer.engine.config import load_engine_config, resolve_engine_config
from ds_trainer.job import begin_run
from ds_trainer.loop import train as train_epochs
from ds_trainer.progress import start_log
from ds_trainer.settings import RunSettings
from ds_trainer.tasks.sign.task import SignTask
from ds_trainer.watch.watch import Watch


def train(case: Case, after_step: AfterStep, is_compiled: bool = False) -> None:
    """Train until `after_step` raises."""
    start_log()
    distributed.export_rank_variables()
    watch = Watch()
    try:
        with tempfile.TemporaryDirectory() as runs_dir:
            settings = settings_of(case, Path(runs_dir), is_compiled)
            watch.join(settings.stall_timeout_s, settings.start_timeout_s)
            _train(settings, after_step)
    finally:
        watch.leave(None)


def train_compiled(case: Case, after_step: AfterStep) -> None:
    """The same with `--compile`."""
    train(case, after_step, is_compiled=True)


def _train(settings: RunSettings, after_step: AfterStep) -> None:
    task = SignTask(settings)
    path = settings.deepspeed_config
    config = resolve_engine_config(
        load_engine_config(path), distributed.world_size(), distributed.device().type, source=str(path)
    )
    job = build_job(settings, task, config)

    def wants_stop() -> None:
        """Asked between steps: the one moment at which the loop asks something from outside."""
        after_step(totals)

    def totals() -> Totals:
        loss, num_clips = run.sums.loss_and_examples().tolist()
        return loss, num_clips

    run = begin_run(settings, task, config, job, wants_stop=wants_stop)
    train_epochs(job.engine, task.objective, job.plateau, job.train_dl, job.val_dl, settings.num_epochs, run)


def prepare(case: Case, after_step: AfterStep, is_compiled: bool = False) -> None:
    """Only the data path, in a process that training has made its own."""
    settings = settings_of(case, Path("unused"), is_compiled)
    distributed.join(settings.stall_timeout_s)
    task = SignTask(settings)
    sampler = ShardedSampler(size_of(task.train_set), case.micro_batch, seed=task.settings.seed)
    loader = BatchLoader(task.train_set, sampler, task.prepare, task.collate, task.num_workers)
    for epoch in range(task.settings.num_epochs):
        sampler.set_epoch(epoch)
        for _ in loader:
            wait_for_device()  # nothing else makes a GPU finish one batch before the next
            after_step(nothing_learned)


def prepare_compiled(case: Case, after_step: AfterStep) -> None:
    """The same with `--compile`."""
    prepare(case, after_step, is_compiled=True)
