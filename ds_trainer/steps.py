"""What happens around each step: sums, the record, and what the ranks decide together before the next one."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ds_trainer.bad_batches import BadBatches
from ds_trainer.batches import Batch, BatchLoader
from ds_trainer.distributed import Vote, all_sum, gathered
from ds_trainer.engine.buffers import HeldBuffers
from ds_trainer.engine.engine import plain_module
from ds_trainer.run.run_dir import Run
from ds_trainer.run.saving import Saving
from ds_trainer.stopping import StopRequested

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


class Steps:
    """Counts steps and acts between them; waits for the device only at steps that are recorded. Made by all ranks."""

    def __init__(self, engine: "DeepSpeedEngine", run: Run, saving: Saving, batches: BatchLoader):
        """Collective."""
        self._engine = engine
        self._run = run
        self._saving = saving
        self._bad_batches = BadBatches(engine, run, batches.name_of)
        self._buffers = HeldBuffers(plain_module(engine))
        self._vote = Vote()
        self._loss = torch.zeros((), dtype=torch.float64, device=engine.device)

    def add(self, batch: Batch, loss: Tensor) -> None:
        """Note a micro-step and its summed loss."""
        self._run.sums.add_loss(loss, batch.source.num_real)
        self._loss += loss * batch.share
        self._bad_batches.note(batch, loss)

    def end_step(self) -> None:
        """After the engine's step: count it, and do what any rank wishes. Collective.

        Raises:
            StopRequested: some rank was asked to stop; a resume point was written; on every rank, after the same step.
            NonFiniteLossError: too many steps in a row were skipped; on every rank.
        """
        run = self._run
        run.after_step(self._engine, self._loss)
        was_skipped = self._bad_batches.after_step()
        self._buffers.after_step(was_skipped)
        run.sums.add_skipped(was_skipped)
        self._loss.zero_()
        reason = run.wants_stop()
        stop, save, report = self._vote.cast(
            reason is not None, self._saving.is_time_to_save(), self._bad_batches.has_found()
        )
        if report:
            self._bad_batches.report()
        every_steps = run.cadence.resume_every_steps
        if save or stop or (every_steps and run.steps_done % every_steps == 0):
            self._saving.resume_point()
        if stop:
            raise StopRequested(next(filter(None, gathered(reason)), "another rank"))

    def stop_if_asked(self) -> None:
        """After an epoch whose resume point is written: whoever was asked during validation stops here. Collective.

        Raises:
            StopRequested: some rank was asked to stop; on every rank.
        """
        reason = next(filter(None, gathered(self._run.wants_stop())), None)
        if reason is not None:
            raise StopRequested(reason)

    def end_epoch(self) -> float | None:
        """The mean loss over the epoch's examples, those left out whose loss was not finite; None of none. Collective.

        Raises:
            NonFiniteLossError: too many steps in a row were skipped; on every rank.
        """
        self._bad_batches.report()
        loss, num_examples = all_sum(self._run.sums.loss_and_examples()).tolist()  # synchronises, once an epoch
        return loss / num_examples if num_examples else None
