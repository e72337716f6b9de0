"""The loop: an epoch trains, validates, steps the plateau, keeps the best and records."""

import contextlib
import gc
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ds_trainer.batches import Batch, BatchLoader
from ds_trainer.engine.buffers import share_buffers
from ds_trainer.engine.engine import plain_module
from ds_trainer.errors import NonFiniteLossError, TaskError
from ds_trainer.objective import Objective, total
from ds_trainer.profiling import Profile
from ds_trainer.randomness import seed_torch
from ds_trainer.run.run_dir import Run
from ds_trainer.run.saving import Saving
from ds_trainer.steps import Steps
from ds_trainer.validation import Metrics, non_finite_examples, validate
from ds_trainer.weight_average import averaged_weights

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


def train(
    engine: "DeepSpeedEngine",
    objective: Objective,
    plateau: ReduceLROnPlateau,
    train_dl: BatchLoader,
    val_dl: BatchLoader,
    num_epochs: int,
    run: Run,
) -> Path | None:
    """Train for `num_epochs`; return the best checkpoint on the master rank and None elsewhere. Collective.

    Args:
        objective: the loss to minimise, one value an example, and what validation measures.
        num_epochs: in all, those included that `run` has behind it.
        run: knows which epochs remain and which was best, and keeps the record.

    Raises:
        NonFiniteLossError: the validation loss is NaN or infinite, or the gradient in many steps in a row; on every
            rank.
        StopRequested: a rank was asked to stop; a resume point was written; on every rank.
        WriteError: something could not be written to the end; on every rank.
    """
    with _imports_stay(), Saving(engine, run, plateau) as saving:
        steps = Steps(engine, run, saving, train_dl)
        profile = Profile(engine, run.dir, run.cadence.profile)
        for epoch in run.remaining_epochs(num_epochs):
            train_dl.sampler.set_epoch(epoch, first_step=run.sums.num_steps)
            batches = profile.over(run.with_progress(train_dl))
            train_loss = train_epoch(engine, objective, batches, steps)
            share_buffers(plain_module(engine))
            with averaged_weights(engine):
                metrics = validate(engine, objective, val_dl)
                _refuse_non_finite(metrics, val_dl, run)
                if run.is_best(metrics):
                    saving.best(metrics)
            plateau.step(metrics.loss)
            run.record_epoch(train_loss, metrics)
            saving.resume_point()
            steps.stop_if_asked()
            gc.collect()  # validation and checkpoints leave cycles
    return run.best_checkpoint


def train_epoch(
    engine: "DeepSpeedEngine", objective: Objective, batches: Iterable[Batch], steps: Steps
) -> float | None:
    """The steps of an epoch that are still to be taken; return the mean loss over its examples. Collective.

    An engine step follows the last micro-step of each step, also of a shorter one: DeepSpeed does not count micro-steps
    (`managed_gradient_accumulation` is false), so an incomplete window cannot leak into the next epoch.

    Raises:
        StopRequested: a rank was asked to stop; a resume point was written.
    """
    engine.train()
    for batch in batches:
        steps.add(batch, micro_step(engine, objective, batch))
        if batch.ends_step:
            engine.step()
            steps.end_step()
    return steps.end_epoch()


def micro_step(engine: "DeepSpeedEngine", objective: Objective, batch: Batch) -> Tensor:
    """Forward and backward of one micro-batch; return its summed loss. Collective under ZeRO-3.

    Raises:
        TaskError: there is nothing to go backward through, or a gradient is sparse.
    """
    seed_torch(batch.seed)  # dropout: a function of (seed, epoch, micro-step, rank), so nothing has to be saved
    losses_B = objective.minimised(engine(*batch.inputs), batch.targets)
    loss = total(losses_B, batch.weight_B)
    if not loss.requires_grad:
        raise TaskError(
            "the task's objective: loss does not depend on the model's weights, expected one computed of its outputs; "
            "look for detach, item, numpy or argmax in it"
        )
    try:
        engine.backward(loss * batch.share, scale_wrt_gas=False)
    except RuntimeError as error:
        _refuse_sparse(error)
        raise
    return loss.detach()


def _refuse_sparse(error: RuntimeError) -> None:
    """Told without a name: whoever meets such a gradient first, torch or DeepSpeed, names no weight."""
    if "not implemented" in str(error) and "sparse" in str(error):
        raise TaskError(
            "the task's model: a weight has sparse gradients, which cannot be trained here; expected dense ones: look "
            "for functional.embedding(..., sparse=True) in its forward"
        ) from error


def _refuse_non_finite(metrics: Metrics, val_dl: BatchLoader, run: Run) -> None:
    if math.isfinite(metrics.loss):
        return
    remedy = "lower the learning rate in the engine config, or look for extreme values in the data"
    if bool(metrics.losses_N.isfinite().any()):  # a model that diverged spares hardly any
        bad = non_finite_examples(metrics, val_dl.name_of)
        remedy = f"it is that of {bad}: look at their values and targets, or lower the learning rate"
    kept = f"; the last good state is in {run.dir}" if run.epochs_done else ""
    raise NonFiniteLossError(
        f"epoch {run.epochs_done + 1}: the validation loss is {metrics.loss}, expected a finite number; {remedy}{kept}"
    )


@contextlib.contextmanager
def _imports_stay() -> Iterator[None]:
    """Have Python's garbage collector pass over what was there before: 0.15 s at each look after an epoch."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()  # else a process that trains again would keep this run's engine
