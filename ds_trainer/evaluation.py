"""What a run has reached: its best checkpoint, scored and drawn."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from ds_trainer import distributed
from ds_trainer.adaptation import validate_adapted
from ds_trainer.batches import size_of
from ds_trainer.calibration import Calibration, calibration_of, fit_temperature, with_confidence
from ds_trainer.checkpoint import load_checkpoint, load_model, write_checkpoint
from ds_trainer.engine.precision import cast_floats
from ds_trainer.errors import WriteError
from ds_trainer.progress import log
from ds_trainer.task import Task
from ds_trainer.validation import Metrics, in_order, non_finite_examples, validate
from ds_trainer.watch.whereabouts import stand_at

if TYPE_CHECKING:
    from ds_trainer.run.run_dir import Run

EngineConfig = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """What the best checkpoint reaches.

    Args:
        whole: on the whole split: its loss and metrics by name.
        by_group: on the examples of each group that the task tells apart, such as signers.
        calibration: how well confidences fit on the split; None if the task has no classes.
    """

    whole: dict[str, float]
    by_group: dict[str, dict[str, float]]
    calibration: Calibration | None = None

    def details(self) -> dict[str, Any]:
        """What is told beside the whole, as plain values."""
        found: dict[str, Any] = {"by_group": self.by_group}
        if self.calibration is not None:
            found |= {
                "temperature": self.calibration.temperature,
                "calibration_error": self.calibration.error_after,
                "calibration_error_without_temperature": self.calibration.error_before,
            }
        return found

    def plain(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {"results": self.whole, **self.details()}


def evaluate_best(run: "Run", task: Task, engine_config: EngineConfig) -> Results:
    """Score the best checkpoint, as a user of the file would, on the test split; draw the diagnostics. Collective.

    A task that holds nothing out is scored on its validation split, and the plots say so.
    """
    checkpoint = distributed.agreed(lambda: load_checkpoint(run.dir / "best.pth"))
    model = model_to_score(checkpoint)
    micro_batch = engine_config["train_micro_batch_size_per_gpu"]
    split, dataset = "validation", task.val_set
    if task.test_set is not None and size_of(task.test_set) > 0:
        split, dataset = "test", task.test_set
    temperature = None
    if task.class_names is not None:
        temperature = fit_temperature(model, in_order(task, task.val_set, micro_batch))
    metrics, results = score(model, task, dataset, micro_batch, temperature)
    if distributed.is_master():
        with _whole_model_told(run):
            if temperature is not None:
                write_checkpoint(run.dir / "best.pth", {**checkpoint, "temperature": temperature})
            run.record_test(split, {**results.whole, **results.details()})
            stand_at("drawing")
            scored = f"{split} split, epoch {checkpoint['epoch'] + 1}"
            _draw(run, task, metrics, results, scored, engine_config)
            _report(run, task, dataset, metrics, results, scored)
        tell(results, f"{split} split, best checkpoint (epoch {checkpoint['epoch'] + 1})")
        log.info(f"checkpoint {run.dir / 'best.pth'}\ndiagnostics {run.dir / 'diagnostics'}")
        log.info(f"report {run.dir / 'report.html'}")
    return results


def model_to_score(checkpoint: Mapping[str, Any]) -> nn.Module:
    """The model of a checkpoint on this rank's device; inputs and outputs are cast as in training, to float32."""
    model = load_model(checkpoint).to(distributed.device())
    model.register_forward_pre_hook(lambda module, inputs: cast_floats(inputs, torch.float32))
    model.register_forward_hook(lambda module, inputs, outputs: cast_floats(outputs, torch.float32))
    return model


def score(
    model: nn.Module,
    task: Task,
    dataset: Dataset[Any],
    micro_batch: int,
    temperature: float | None,
    adapts: bool = False,
) -> tuple[Metrics, Results]:
    """What `model` reaches on one of the task's data sets. Collective.

    Args:
        temperature: what its logits are divided by where confidence matters; None: the task has no classes.
        adapts: whether the model is adapted to each group of examples; see `adaptation.validate_adapted`.
    """
    calibration, batches = None, in_order(task, dataset, micro_batch)
    if temperature is None:
        metrics = validate(model, task.objective, batches)
    else:
        objective = with_confidence(task.objective, temperature)
        if adapts:
            measured = validate_adapted(model, task, objective, dataset, micro_batch, temperature)
        else:
            measured = validate(model, objective, batches)
        metrics, calibration = calibration_of(measured, temperature)
    bad = non_finite_examples(metrics, batches.name_of)
    if bad is not None and distributed.is_master():
        log.warning(f"the loss of {bad} is NaN or infinite, and so is their mean; look at their values and targets")
    whole = {"loss": metrics.loss, **metrics.named}
    return metrics, Results(whole, by_group(task, dataset, metrics), calibration)


def tell(results: Results, scored: str) -> None:
    """Show the results in the log."""
    shown = "".join(f"  {name} {value:.3f}" for name, value in results.whole.items())
    log.info(f"{scored}:{shown}")
    calibration = results.calibration
    if calibration is not None:
        fitted = (
            f", {calibration.error_after:.3f} with the temperature {calibration.temperature:.2f} that validation gives"
        )
        log.info(f"calibration error {calibration.error_before:.3f}{fitted if calibration.temperature != 1.0 else ''}")


def by_group(task: Task, dataset: Dataset[Any], metrics: Metrics) -> dict[str, dict[str, float]]:
    """The loss and metrics of each group's examples, by the name of the group, and how many they are."""
    names = np.array(task.groups(dataset) or [], dtype=np.str_)
    found = {}
    for group in np.unique(names).tolist():
        of_group = torch.from_numpy(names == group)
        named = task.objective.metrics(metrics.measures_NM[of_group])
        found[group] = {"loss": metrics.losses_N[of_group].mean().item(), **named, "num_examples": int(of_group.sum())}
    return found


@contextmanager
def _whole_model_told(run: "Run") -> Iterator[None]:
    """Within it, a WriteError also says that the model is saved, and how to draw again."""
    try:
        yield
    except WriteError as error:
        remedy = f"the model is whole, in best.pth; the same command with --resume {run.dir} draws again"
        raise WriteError([f"{problem}; {remedy}" for problem in error.problems]) from error


def _draw(run: "Run", task: Task, metrics: Metrics, results: Results, scored: str, engine_config: EngineConfig) -> None:
    # Half a second that only the master needs.
    from ds_trainer.diagnostics import draw_calibration, draw_curves, visualize_metrics

    out_dir, records = run.dir / "diagnostics", run.records.load()
    clipping = engine_config["gradient_clipping"] or None
    if task.class_names is None:
        draw_curves(out_dir, records, task.label(), clipping)
    else:
        visualize_metrics(out_dir, records, metrics.measures_NM, task.class_names, task.label(), scored, clipping)
    if results.calibration is not None:
        draw_calibration(out_dir, results.calibration, f"{task.label()}, {scored}")


def _report(run: "Run", task: Task, dataset: Dataset[Any], metrics: Metrics, results: Results, scored: str) -> None:
    from ds_trainer.report.answers import Answers
    from ds_trainer.report.page import NUM_DRAWN, Scored, write_page

    told = Scored(scored, results.whole, results.by_group)
    if results.calibration is not None and task.class_names is not None:
        answers = Answers.of(task, dataset, metrics, results.calibration)
        answers.write(run.dir / "diagnostics" / "answers.csv", task.class_names)
        drawn = task.skeletons(dataset, answers.worst(NUM_DRAWN).tolist()) or ()
        told = replace(
            told, class_names=task.class_names, answers=answers, calibration=results.calibration, drawn=drawn
        )
    write_page(run.dir, run.records.load(), task.label(), told)
