"""A run: its timestamped directory, its record, and how far it has come.

runs/2026-11-22_14-03-09-signs_502-st_transformer-s_4_6/
  run.yaml  engine.json  environment.json    resolved settings; commit, versions, hardware, data
  status.json                                running, finished, failed, ...
  metrics.jsonl                              one line an epoch, and one every N steps
  best.pth                                   the checkpoint with the lowest validation loss
  resume/                                    resume points
  diagnostics/                               plots and the classification report
"""

import itertools
import json
import math
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from torch import Tensor

from ds_trainer.batches import Batch, BatchLoader
from ds_trainer.distributed import agreed, is_master
from ds_trainer.engine import gradient_norm, learning_rate
from ds_trainer.errors import WriteError
from ds_trainer.files import write_atomically, write_json
from ds_trainer.progress import RemainingTime, clock, log, with_bar
from ds_trainer.validation import Metrics

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

Record = dict[str, Any]


def new_run_dir(runs_dir: Path, label: str) -> Path:
    """Make a run directory with a name that no other has; the same path on every rank. Collective.

    Raises:
        WriteError: it cannot be made there.
    """
    return agreed(lambda: _make_run_dir(runs_dir, f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{label}"))


def _make_run_dir(runs_dir: Path, name: str) -> Path:
    for attempt in itertools.count(1):
        run_dir = runs_dir / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            runs_dir.mkdir(parents=True, exist_ok=True)
            run_dir.mkdir()
            return run_dir
        except FileExistsError:
            if not runs_dir.is_dir():
                raise WriteError(f"{runs_dir}: is a file, expected a directory; choose another --runs_dir") from None
        except OSError as error:
            raise WriteError.of(runs_dir, error) from error
    raise AssertionError("unreachable")


class Run:
    """One training run.

    Args:
        run_dir: its directory; only the master rank writes there.
        provenance: what a checkpoint says of the run it is from: task, model, settings, versions.
        record_every_steps: steps between two step lines of metrics.jsonl.
        early_stopping_epochs: stop after so many epochs without a better validation loss; 0 never.
    """

    def __init__(self, run_dir: Path, provenance: Record, record_every_steps: int = 20, early_stopping_epochs: int = 0):
        self.dir = run_dir
        self.provenance = provenance
        self.record_every_steps = record_every_steps
        self.early_stopping_epochs = early_stopping_epochs
        self.num_epochs = 0
        self.epochs_done = 0
        self.steps_done = 0
        self.best_loss = math.inf
        self.best_epoch = -1
        self._remaining_time = RemainingTime()
        self._begin_epoch()

    # -- how far it has come ------------------------------------------------------------------------------------------

    def remaining_epochs(self, num_epochs: int) -> Iterator[int]:
        """The numbers, from 0, of the epochs that are still to be trained. `record_epoch` ends each."""
        self.num_epochs = num_epochs
        while self.epochs_done < num_epochs and not self._has_stopped_improving():
            self._begin_epoch()
            yield self.epochs_done

    def _begin_epoch(self) -> None:
        self._epoch_began = time.monotonic()
        self._train_seconds = 0.0
        self._num_examples = 0
        self._learning_rate = 0.0
        self._steps_before = self.steps_done
        self._gradient_norm_sum: Tensor | float | None = 0.0

    def _has_stopped_improving(self) -> bool:
        epochs_since_best = self.epochs_done - 1 - self.best_epoch
        return 0 < self.early_stopping_epochs <= epochs_since_best

    def is_best(self, metrics: Metrics) -> bool:
        """Whether the validation loss is lower than in every epoch before."""
        return metrics.loss < self.best_loss

    @property
    def best_checkpoint(self) -> Path | None:
        """The path of `best.pth` on the master rank, None elsewhere or before there is one."""
        return self.dir / "best.pth" if is_master() and self.best_epoch >= 0 else None

    def state_dict(self) -> Record:
        """What a resume point keeps of the run."""
        names = ("epochs_done", "steps_done", "best_loss", "best_epoch")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Record) -> None:
        """Go back to where `state` was taken, the record included."""
        for name, value in state.items():
            setattr(self, name, value)
        if is_master():
            self._forget_records_after(self.steps_done)

    # -- what is written ----------------------------------------------------------------------------------------------

    def with_progress(self, batches: BatchLoader) -> Iterable[Batch]:
        """The batches of an epoch, behind a progress bar."""
        title = f"epoch {self.epochs_done + 1}/{self.num_epochs}"
        self._num_examples = batches.num_examples
        yield from with_bar(batches, len(batches), title)
        self._train_seconds = time.monotonic() - self._epoch_began

    def after_step(self, engine: "DeepSpeedEngine", loss: Tensor) -> None:
        """Count a step, and every `record_every_steps` write one line about it.

        Args:
            loss: this rank's part of the step's mean loss, on the device.
        """
        self.steps_done += 1
        self._learning_rate = learning_rate(engine)
        norm = gradient_norm(engine)
        if norm is None or self._gradient_norm_sum is None:
            self._gradient_norm_sum = None
        else:
            self._gradient_norm_sum = self._gradient_norm_sum + norm
        if self.steps_done % self.record_every_steps == 0 and is_master():
            self._append(
                kind="step",
                epoch=self.epochs_done,
                step=self.steps_done,
                loss=loss.item(),  # synchronises, every record_every_steps
                grad_norm=None if norm is None else float(norm),
                learning_rate=self._learning_rate,
            )

    def record_epoch(self, train_loss: float, metrics: Metrics) -> None:
        """End the epoch: remember whether it was the best, write its line, and show it."""
        is_best = self.is_best(metrics)
        if is_best:
            self.best_loss, self.best_epoch = metrics.loss, self.epochs_done
        if is_master():
            speed = self._num_examples / self._train_seconds if self._train_seconds else 0.0
            self._append(
                kind="epoch",
                epoch=self.epochs_done,
                step=self.steps_done,
                train_loss=train_loss,
                val_loss=metrics.loss,
                learning_rate=self._learning_rate,
                grad_norm=self._mean_gradient_norm(),
                **metrics.named,
                seconds=round(time.monotonic() - self._epoch_began, 3),
                examples_per_second=round(speed, 1),
            )
            self._show_epoch(train_loss, metrics, speed, is_best)
        self.epochs_done += 1

    def _show_epoch(self, train_loss: float, metrics: Metrics, speed: float, is_best: bool) -> None:
        num_left = self.num_epochs - self.epochs_done - 1
        named = "".join(f"  {name} {value:.3f}" for name, value in metrics.named.items())
        left = clock(self._remaining_time.after_epoch(num_left))
        log.info(
            f"epoch {self.epochs_done + 1:>3}/{self.num_epochs}  train {train_loss:.4f}  val {metrics.loss:.4f}{named}"
            f"  lr {self._learning_rate:.1e}  {speed:.0f} clips/s  {left} left{'  best' if is_best else ''}"
        )

    def _mean_gradient_norm(self) -> float | None:
        num_steps = self.steps_done - self._steps_before
        if self._gradient_norm_sum is None or num_steps == 0:
            return None
        return float(self._gradient_norm_sum) / num_steps

    def _append(self, **record: Any) -> None:
        path = self.dir / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise WriteError.of(path, error) from error

    def _forget_records_after(self, step: int) -> None:
        kept = "".join(json.dumps(record) + "\n" for record in self.records() if record["step"] <= step)
        write_atomically(self.dir / "metrics.jsonl", lambda file: file.write(kept.encode()))

    def records(self) -> list[Record]:
        """The lines of metrics.jsonl; a last line that was cut off is left out."""
        path = self.dir / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def write_provenance(self, settings: Record, engine_config: Record, environment: Record) -> None:
        """Write the resolved settings and what they ran on."""
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        write_atomically(self.dir / "run.yaml", lambda file: file.write(text.encode()))
        write_json(self.dir / "engine.json", engine_config)
        write_json(self.dir / "environment.json", environment)

    def record_test(self, split: str, metrics: Metrics) -> None:
        """Write what the best checkpoint reaches on the split that nothing was chosen by."""
        self._append(kind="test", split=split, step=self.steps_done, loss=metrics.loss, **metrics.named)

    def write_status(self, status: str, **details: Any) -> None:
        """Say in status.json what became of the run: a launcher's exit status cannot be trusted."""
        if is_master():
            write_json(self.dir / "status.json", {"status": status, "epochs_done": self.epochs_done, **details})
