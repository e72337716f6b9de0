"""What a job trains with, built from its settings: model, engine, learning rate and batches."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ds_trainer.batches import BatchLoader, ShardedSampler, size_of
from ds_trainer.dry_run import describe_job
from ds_trainer.engine.engine import build_engine
from ds_trainer.engine.parameter_groups import described
from ds_trainer.engine.refusals import refusals_told, refuse_unmatched
from ds_trainer.passes import passed_enough
from ds_trainer.plateau import build_plateau, warm_up_and_cool_down
from ds_trainer.pretrained import begin_with
from ds_trainer.progress import log
from ds_trainer.settings import RunSettings
from ds_trainer.task import Task
from ds_trainer.task_rules import refuse_misdescribed, refuse_untrainable
from ds_trainer.utilisation import Utilisation, utilisation_of
from ds_trainer.validation import in_order
from ds_trainer.weight_average import average_weights

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

EngineConfig = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Job:
    """What `train` gets, built."""

    engine: "DeepSpeedEngine"
    plateau: ReduceLROnPlateau
    train_dl: BatchLoader
    val_dl: BatchLoader
    num_parameters: int
    described: list[str]
    utilisation: Utilisation | None


def build_job(settings: RunSettings, task: Task, engine_config: EngineConfig, pretrained: Path | None = None) -> Job:
    """Model, engine, plateau and batches. Collective.

    Args:
        pretrained: whose weights are the first ones; None: random ones, or those of a resume point to come.
    """
    micro_batch = engine_config["train_micro_batch_size_per_gpu"]
    torch.manual_seed(settings.seed)
    model = task.build_model()
    refuse_untrainable(task, model, engine_config)
    refuse_misdescribed(task, model)
    if pretrained is not None:
        for line in begin_with(pretrained, model, task):
            log.info(line)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    utilisation = utilisation_of(task, model, engine_config)
    rates = described(model, task.learning_rate_factor)  # an engine takes the model apart
    source = str(settings.deepspeed_config)
    refuse_unmatched(model, engine_config, source)
    with refusals_told(source):
        engine = build_engine(model, engine_config, settings.verbose, settings.compile, task.learning_rate_factor)
    accumulation = engine_config["gradient_accumulation_steps"]
    train_set = passed_enough(task.train_set, settings.min_epoch_clips)
    sampler = ShardedSampler(size_of(train_set), micro_batch, accumulation, settings.seed)
    warm_up_and_cool_down(
        engine,
        num_steps=settings.num_epochs * sampler.steps_per_epoch,
        num_warmup=round(settings.warmup_epochs * sampler.steps_per_epoch),
        num_cooldown=round(settings.cooldown_epochs * sampler.steps_per_epoch),
    )
    average_weights(engine, settings.weight_average_decay)
    return Job(
        engine=engine,
        plateau=build_plateau(engine, settings.plateau_factor, settings.plateau_patience),
        train_dl=BatchLoader(train_set, sampler, task.prepare, task.collate, task.num_workers),
        val_dl=in_order(task, task.val_set, micro_batch),
        num_parameters=num_parameters,
        described=[*describe_job(task, sampler, engine_config, num_parameters), *rates],
        utilisation=utilisation,
    )
