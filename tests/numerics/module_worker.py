"""One rank that trains each of `modules.py` for a few steps, in each precision and ZeRO stage.

module_worker.py OUT      under RANK, WORLD_SIZE, ...; each rank writes OUT/rank_{rank}_of_{size}.pt
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ds_trainer import distributed
from ds_trainer.checkpoint import load_checkpoint
from ds_trainer.engine.buffers import share_buffers
from ds_trainer.engine.engine import build_engine, learning_rate, plain_module
from ds_trainer.engine.state import full_precision_state
from ds_trainer.progress import start_log
from ds_trainer.tasks.toy.task import ToyTask
from ds_trainer.validation import validate
from numerics.modules import INDIVISIBLE, MODULES
from numerics.worker import GLOBAL_BATCH, Case, engine_config, new_run

NUM_STEPS = 4


def new_module(name: str) -> nn.Module:
    torch.manual_seed(1)
    return MODULES[name]()


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    rule = torch.randn(16, 4, generator=generator)
    inputs = torch.randn(NUM_STEPS, GLOBAL_BATCH, 16, generator=generator)
    return [(numbers_BC, (numbers_BC @ rule).argmax(1)) for numbers_BC in inputs]


def factor_by_layer(name: str) -> float:
    """A tenth of the learning rate for the first layer, and twice of it for what is called a bias anywhere."""
    return (0.1 if name.startswith(("first", "trained.0")) else 1.0) * (2.0 if name.endswith("bias") else 1.0)


def outcome(
    name: str,
    precision: str,
    stage: int,
    is_offloaded: bool = False,
    factor: Callable[[str], float] = lambda name: 1.0,
) -> dict[str, Any]:
    """The loss of each step on this rank, and what all ranks hold afterwards."""
    own, device = GLOBAL_BATCH // distributed.world_size(), distributed.device()
    mine = slice(distributed.rank() * own, (distributed.rank() + 1) * own)
    config = engine_config(precision, stage, own)
    if is_offloaded:
        config["zero_optimization"]["offload_optimizer"] = {"device": "cpu"}
    engine = build_engine(new_module(name), config, learning_rate_factor=factor)
    engine.train()
    losses = []
    for inputs, targets in batches():
        loss = cross_entropy(engine(inputs[mine].to(device)), targets[mine].to(device))
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    share_buffers(plain_module(engine))
    engine.eval()
    with torch.no_grad():
        logits = engine(batches()[0][0].to(device)).cpu()
    buffers = {name: buffer.cpu().clone() for name, buffer in plain_module(engine).named_buffers()}
    assert learning_rate(engine) == 0.01, "that of weights of factor 1"
    return {"losses": losses, "logits": logits, "buffers": buffers, "state": full_precision_state(engine)}


class NormedTask(ToyTask):
    """The toy task with running statistics in its model."""

    @classmethod
    def model_from(cls, description: Mapping[str, Any]) -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(2), super().model_from(description))


class NormedCase(Case):
    task_type = NormedTask


def validated_and_saved(out: Path) -> tuple[float, float]:
    """The loss that a run was at, and that of its checkpoint, scored without the engine."""
    case = NormedCase("fp32", 1, micro_batch=6, weight_average_decay=0.0)
    run = new_run(out, "normed")
    case.train(run, 1)
    best = distributed.agreed(lambda: load_checkpoint(run.dir / "best.pth"))
    model = case.task.build_model().to(distributed.device())
    model.load_state_dict(best["state_dict"])
    return best["metrics"]["val_loss"], validate(model, case.task.objective, case.job.val_dl).loss


class PoisonedTask(NormedTask):
    """One point has no place."""

    def __init__(self, settings: Any):
        super().__init__(settings)
        self.train_set.tensors[0][7] = float("nan")


class PoisonedCase(Case):
    task_type = PoisonedTask


def after_a_bad_batch(out: Path, precision: str) -> dict[str, Tensor]:
    """What the model keeps after an epoch of which a step was skipped."""
    case = PoisonedCase(precision, 1, micro_batch=6, weight_average_decay=0.0)
    run = new_run(out, f"poisoned-{precision}")
    case.train(run, 1)
    assert (run.dir / "bad_batches").is_dir()
    return plain_module(case.job.engine).state_dict()


def main(out: Path) -> None:
    distributed.join(120)
    start_log()
    results: dict[tuple[Any, ...], Any] = {
        (name, precision, stage): outcome(name, precision, stage)
        for precision in ("fp32", "bf16")
        for stage in (0, 1, 2, 3)
        for name in MODULES
        if stage < 3 or name not in INDIVISIBLE
    }
    results |= {
        (name, f"{precision} by layer", stage): outcome(name, precision, stage, factor=factor_by_layer)
        for name in ("Normed", "Buffers")
        for precision in ("fp32", "bf16")
        for stage in range(4)
    }
    results |= {("Seldom", "offloaded", stage): outcome("Seldom", "fp32", stage, True) for stage in (1, 2, 3)}
    results["validated", "saved"] = validated_and_saved(out)
    results["poisoned"] = {precision: after_a_bad_batch(out, precision) for precision in ("fp32", "bf16")}
    torch.save(results, out / f"rank_{distributed.rank()}_of_{distributed.world_size()}.pt")
    distributed.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
