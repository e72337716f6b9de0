"""A run: its timestamped directory, its record, and how far it has come.

runs/2026-11-22_14-03-09-signs_502-st_transformer-s_4_6/
  run.yaml  engine.json  environment.json    resolved settings; commit, versions, hardware, data
  status.json                                running, finished, stopped, failed
  metrics.jsonl                              one line an epoch, and one every N steps
  best.pth                                   the model with the lowest validation loss, or the last one
  resume/                                    resume points
  diagnostics/  report.html                  plots, the classification report, each answer; all of it on one page
  bad_batches/                               steps whose gradient was NaN or infinite
  profile/                                   with --profile: a trace and its summary
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ds_trainer import gpu
from ds_trainer.batches import Batch, BatchLoader
from ds_trainer.distributed import agreed, all_sum, is_master, world_size
from ds_trainer.engine.engine import gradient_norm, learning_rate
from ds_trainer.files import write_json, write_yaml
from ds_trainer.progress import RemainingTime, epoch_line, log, with_bar
from ds_trainer.run.busy_cores import BusyCores
from ds_trainer.run.cadence import Cadence
from ds_trainer.run.epoch_sums import EpochSums
from ds_trainer.run.reading import read_json
from ds_trainer.run.records import Record, Records
from ds_trainer.stopping import WantsStop
from ds_trainer.utilisation import Utilisation
from ds_trainer.validation import Metrics
from ds_trainer.watch.whereabouts import stand_at

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

_MASTER_FIRST_S = 2.0
_KEPT = ("epochs_done", "steps_done", "best_loss", "best_epoch")


class Run:
    """One training run.

    Args:
        run_dir: its directory; only the master rank writes there.
        provenance: what a checkpoint says of the run it is from: task, model, settings, versions.
        wants_stop: asked between steps; tells why the run should stop, or None.
        utilisation: tells which fraction of the devices' arithmetic is used, where that is known.
    """

    def __init__(
        self,
        run_dir: Path,
        provenance: Record,
        cadence: Cadence,
        wants_stop: WantsStop = lambda: None,
        utilisation: Utilisation | None = None,
    ):
        self.dir = run_dir
        self.provenance = provenance
        self.cadence = cadence
        self.wants_stop = wants_stop
        self.utilisation = utilisation
        self.records = Records(run_dir / "metrics.jsonl")
        self.num_epochs = 0
        self.epochs_done = 0
        self.steps_done = 0
        self.best_loss = math.inf
        self.best_epoch = -1
        self.sums = EpochSums.of_nothing()
        self._remaining_time = RemainingTime()
        self._epoch_began = time.monotonic()
        self._examples_per_second = 0.0
        self._cores = BusyCores()

    # -- how far it has come ------------------------------------------------------------------------------------------

    def remaining_epochs(self, num_epochs: int) -> Iterator[int]:
        """The numbers, from 0, of the epochs still to be trained, a half-done one first. `record_epoch` ends each."""
        self.num_epochs = num_epochs
        while self.epochs_done < num_epochs and not self._has_stopped_improving():
            self._epoch_began = time.monotonic()
            yield self.epochs_done

    def _has_stopped_improving(self) -> bool:
        epochs_since_best = self.epochs_done - 1 - self.best_epoch
        return self.best_epoch >= 0 and 0 < self.cadence.early_stopping_epochs <= epochs_since_best

    def is_best(self, metrics: Metrics) -> bool:
        """Whether this epoch's model takes the place of the best one before."""
        return self.cadence.model_selection == "last" or metrics.loss < self.best_loss

    @property
    def best_checkpoint(self) -> Path | None:
        """The path of `best.pth` on the master rank, None elsewhere or before there is one."""
        return self.dir / "best.pth" if is_master() and self.best_epoch >= 0 else None

    def state_dict(self) -> Record:
        """What a resume point keeps of the run. Collective."""
        kept = {name: getattr(self, name) for name in _KEPT}
        return kept | {"sums": self.sums.state_dict(), "unwritten_records": list(self.records.unwritten)}

    def load_state_dict(self, state: Record) -> None:
        """Go back to where `state` was taken, the record included. Collective.

        Raises:
            WriteError: the record cannot be written; on every rank.
        """
        for name in _KEPT:
            setattr(self, name, state[name])
        self.sums = EpochSums.from_state(state["sums"])
        agreed(lambda: self.records.keep(self._is_past, state["unwritten_records"]))

    def forget_best(self) -> None:
        """The best checkpoint is lost: the next epoch's takes its place."""
        self.best_loss, self.best_epoch = math.inf, -1

    # -- what is written ----------------------------------------------------------------------------------------------

    def with_progress(self, batches: BatchLoader) -> Iterable[Batch]:
        """The batches of an epoch that are still to come, behind a progress bar."""
        began, num_examples = time.monotonic(), 0
        self._cores.start()
        stand_at("fetching", self.epochs_done + 1, self.steps_done + 1)
        for batch in with_bar(batches, len(batches), f"epoch {self.epochs_done + 1}/{self.num_epochs}"):
            num_examples += batches.sampler.passed_at_once
            stand_at("training", self.epochs_done + 1, self.steps_done + 1)
            yield batch
            stand_at("fetching", self.epochs_done + 1, self.steps_done + 1)
        gpu.wait()  # for the epoch's last steps, as reading its loss will in a moment
        seconds = time.monotonic() - began
        self._cores.end(seconds)
        self._examples_per_second = min(num_examples, batches.num_examples) / seconds if seconds else 0.0

    def after_step(self, engine: "DeepSpeedEngine", loss: Tensor) -> None:
        """Count a step, and every `record_every_steps` write one line about it. Collective.

        Args:
            loss: on the device; its mean over the ranks is the mean loss of the step's examples.
        """
        norm = gradient_norm(engine)
        self.steps_done += 1
        self.sums.add_step(norm, learning_rate(engine))
        if self.steps_done % self.cadence.record_every_steps:
            return
        loss = all_sum(loss / world_size())
        if is_master():
            self.records.append(
                kind="step",
                epoch=self.epochs_done,
                step=self.steps_done,
                loss=loss.item(),  # synchronises, every record_every_steps
                grad_norm=None if norm is None else float(norm),
                learning_rate=self.sums.learning_rate,
            )

    def record_epoch(self, train_loss: float | None, metrics: Metrics) -> None:
        """End the epoch: remember whether it was the best, write its line, and show it."""
        is_best = self.is_best(metrics)
        if is_best:
            self.best_loss, self.best_epoch = metrics.loss, self.epochs_done
        if is_master():
            record = self._epoch_record(train_loss, metrics)
            self.records.append(kind="epoch", is_best=is_best, **record)
            left_s = self._remaining_time.after_epoch(self.num_epochs - self.epochs_done - 1)
            log.info(epoch_line(record, metrics.named, self.num_epochs, left_s) + ("  best" if is_best else ""))
        self.epochs_done += 1
        self.sums = EpochSums.of_nothing()

    def _epoch_record(self, train_loss: float | None, metrics: Metrics) -> Record:
        speed = self._examples_per_second
        used = {} if self.utilisation is None else {"flops_utilisation": round(self.utilisation.at(speed), 4)}
        return {
            "epoch": self.epochs_done,
            "step": self.steps_done,
            "train_loss": train_loss,
            "val_loss": metrics.loss,
            "learning_rate": self.sums.learning_rate,
            "grad_norm": self.sums.mean_gradient_norm(),
            "skipped_steps": int(self.sums.num_skipped),
            **metrics.named,
            "seconds": round(time.monotonic() - self._epoch_began, 3),
            "examples_per_second": round(speed, 1),
            **used,
        }

    def _is_past(self, record: Record) -> bool:
        """Whether a record was written before the step that the run is at, or at its end."""
        if record["kind"] == "step":
            return bool(record["step"] <= self.steps_done)
        return bool(record["kind"] == "epoch" and record["epoch"] < self.epochs_done)

    def write_provenance(self, settings: Record, engine_config: Record, environment: Record) -> None:
        """Write the resolved settings and what they ran on."""
        write_yaml(self.dir / "run.yaml", settings)
        write_json(self.dir / "engine.json", engine_config)
        write_json(self.dir / "environment.json", environment)

    def note_continuation(self, settings: Record, environment: Record) -> None:
        """Write what the run goes on with: its settings, such as more epochs, in place of those before, and beside the
        first environment this one. Warn where that may change its numbers."""
        path = self.dir / "environment.json"
        first = read_json(path)
        before, now = first["versions"], environment["versions"]
        for package in sorted(now.keys() & before.keys()):
            if now[package] != before[package]:
                log.warning(f"continued with {package} {now[package]}, the run began with {before[package]}")
        first.setdefault("continued", []).append({"step": self.steps_done, **environment})
        write_json(path, first)
        write_yaml(self.dir / "run.yaml", settings)

    def record_test(self, split: str, results: Mapping[str, Any]) -> None:
        """Write what the best checkpoint reaches on the split that nothing was chosen by."""
        self.records.append(kind="test", split=split, step=self.steps_done, **results)

    def write_status(self, status: str, **details: Any) -> None:
        """Say in status.json what became of the run: a launcher's exit status cannot be trusted."""
        if is_master():
            self._put_status(status, details)

    def write_failure(self, reason: str) -> None:
        """Say in status.json that the run failed: for the master, if that is gone and this rank sees the file."""
        path = self.dir / "status.json"
        if not is_master():
            time.sleep(_MASTER_FIRST_S)
            if not path.exists() or read_json(path)["status"] != "running":
                return  # a host with a disk of its own, or the master lives, and knows better
        self._put_status("failed", {"reason": reason})

    def _put_status(self, status: str, details: Record) -> None:
        write_json(self.dir / "status.json", {"status": status, "epochs_done": self.epochs_done, **details})
