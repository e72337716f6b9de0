"""Batches that made a gradient NaN or infinite: noticed a moment later, saved for replay, and counted.

bad_batches/step_00000123/
  batch.json     the step's micro-batches on every rank: examples, seeds, losses
  weights.pth    a checkpoint with the weights when it was noticed

The flag of a step is fetched from the device while the next ones are computed, so that no step waits for it.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ds_trainer.batches import Batch
from ds_trainer.checkpoint import write_checkpoint
from ds_trainer.distributed import gathered, is_master, rank, world_size
from ds_trainer.engine.skipping import seeks_loss_scale, was_skipped
from ds_trainer.engine.state import full_precision_state
from ds_trainer.errors import NonFiniteLossError, WriteError
from ds_trainer.files import make_folder, write_json
from ds_trainer.progress import log
from ds_trainer.run.run_dir import Run

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

_MOST_REPORTS = 10


@dataclass
class _Step:
    """A step whose flag is on its way from the device, with what was passed in it."""

    number: int
    passed: list[tuple[Batch, Tensor]]
    skipped: Tensor
    arrived: torch.cuda.Event | None
    num_updates_since: int = 0

    def is_known(self) -> bool:
        return self.arrived is None or self.arrived.query()

    def wait(self) -> None:
        if self.arrived is not None:
            self.arrived.synchronize()


class BadBatches:
    """Notices skipped steps. `note` and `after_step` wait for nothing; `report` is for all ranks together."""

    def __init__(self, engine: "DeepSpeedEngine", run: Run, name_of: Callable[[int], str]):
        self._engine = engine
        self._run = run
        self._name_of = name_of
        self._passed: list[tuple[Batch, Tensor]] = []
        self._open: deque[_Step] = deque()
        self._found: list[_Step] = []
        self._num_in_a_row = 0
        self._num_reports = 0
        self._most_in_a_row = run.cadence.max_skipped_steps

    def note(self, batch: Batch, loss: Tensor) -> None:
        """Remember a micro-batch and its summed loss until its step is known to be sound."""
        self._passed.append((batch, loss))

    def after_step(self) -> Tensor:
        """Ask whether the step was skipped; the answer, float32[] on the device, is for sums and buffers."""
        skipped = was_skipped(self._engine)
        on_host, arrived = skipped, None
        if skipped.is_cuda:
            on_host = torch.empty((), pin_memory=True).copy_(skipped, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self._open.append(_Step(self._run.steps_done, self._passed, on_host, arrived))
        self._passed = []
        return skipped

    def has_found(self) -> bool:
        """Whether a skipped step has become known on this rank."""
        while self._open and self._open[0].is_known():
            self._close(self._open.popleft())
        return bool(self._found)

    def _close(self, step: _Step) -> None:
        if step.skipped.item():
            self._num_in_a_row += 1
            self._found.append(step)
        else:
            self._num_in_a_row = 0
            for earlier in self._found:
                earlier.num_updates_since += 1

    def report(self) -> None:
        """Save the batches of the steps that were skipped, if there are any. Collective.

        Raises:
            NonFiniteLossError: too many in a row; on every rank.
        """
        for step in self._open:
            step.wait()  # now every rank knows of the same steps
        if not self.has_found():
            return
        for step in self._found[: max(0, _MOST_REPORTS - self._num_reports)]:
            self._save(step)
        self._found.clear()
        if self._num_in_a_row >= self._most_in_a_row:
            raise NonFiniteLossError(
                f"step {self._run.steps_done}: the gradient was NaN or infinite in {self._num_in_a_row} steps in a row "
                f"(--max_skipped_steps {self._most_in_a_row}); lower the learning rate, or see what "
                f"`python launch/replay.py` says of {self._run.dir / 'bad_batches'}"
            )

    def _save(self, step: _Step) -> None:
        micro_steps = [line for lines in gathered([self._line(*passed) for passed in step.passed]) for line in lines]
        if seeks_loss_scale(self._engine) and not _is_bad(micro_steps) and self._num_in_a_row < self._most_in_a_row:
            return  # the loss scale was too large, as it is to be now and then
        state = full_precision_state(self._engine)
        self._num_reports += 1
        if not is_master():
            return
        run = self._run
        folder = run.dir / "bad_batches" / f"step_{step.number:08d}"
        place = {"step": step.number, "epoch": run.epochs_done, "noticed_after_step": run.steps_done}
        origin = {"seed": step.passed[0][0].run_seed, "world_size": world_size()}
        content = {**place, **origin, "num_updates_since": step.num_updates_since, "micro_steps": micro_steps}
        weights = {**run.provenance, "epoch": run.epochs_done, "step": run.steps_done, "metrics": {}}
        try:
            make_folder(folder)
            write_json(folder / "batch.json", content)
            write_checkpoint(folder / "weights.pth", {**weights, "state_dict": state})
            advice = f"{_replay(folder, run.provenance['task'])} shows why"
        except WriteError as error:
            advice = f"its batch was not saved: {error}"
        log.warning(f"step {step.number} was skipped: its gradient was NaN or infinite{_blamed(micro_steps)}; {advice}")

    def _line(self, batch: Batch, loss: Tensor) -> dict[str, Any]:
        source, value = batch.source, loss.item()
        real = source.indices[: source.num_real]
        return {
            "rank": rank(),
            "number": source.number,
            "indices": source.indices,
            "num_real": source.num_real,
            "names": [self._name_of(index) for index in real],
            "dropout_seed": batch.seed,
            "share": batch.share,
            "loss": value if math.isfinite(value) else None,
            "loss_text": str(value),
        }


def _replay(folder: Path, task: str) -> str:
    """What runs the batch again: another process cannot find a task of this one's script or notebook."""
    if task.startswith("__main__:"):
        return f"in this script or notebook, ds_trainer.replay.command.main(['{folder}', '--task', '{task}'])"
    return f"python launch/replay.py {folder}" + (f" --task {task}" if ":" in task else "")


def _is_bad(micro_steps: list[dict[str, Any]]) -> bool:
    return any(micro_step["loss"] is None for micro_step in micro_steps)


def _blamed(micro_steps: list[dict[str, Any]]) -> str:
    ranks = sorted({micro_step["rank"] for micro_step in micro_steps if micro_step["loss"] is None})
    return f" (the loss already, on rank {', '.join(map(str, ranks))})" if ranks else " (the loss was finite)"
