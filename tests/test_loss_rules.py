"""A loss of weights of its own is refused, and one of the whole batch is told, before training."""

import sys
from pathlib import Path

import own_objectives
import pytest
import torch
from launching import ROOT, ends_of_ranks, run
from own_tasks import Drawn

from ds_trainer.batches import BatchLoader, ShardedSampler, size_of
from ds_trainer.loss_rules import NOT_ALONE, Answered, beside_others, depends_on_others, learnt_elsewhere, losses_of
from ds_trainer.settings import combined_settings

SETTINGS = combined_settings(Drawn.settings_type)(deepspeed_config=Path("unused"), task="own_tasks:Drawn")
TRAIN = ROOT / "launch" / "train.py"


def problems_of(name: str, micro_batch: int = 8, dtype: torch.dtype = torch.float32) -> tuple[list[str], bool]:
    """What is found of weights learnt elsewhere, and whether examples depend on others."""
    torch.manual_seed(0)
    task = getattr(own_objectives, name)(SETTINGS)
    model = task.build_model().to(dtype)

    @torch.no_grad()
    def answered(dataset: object) -> Answered:
        batches = BatchLoader(dataset, ShardedSampler(size_of(dataset), micro_batch), task.prepare, task.collate)  # type: ignore[arg-type]
        batch = next(iter(batches))
        torch.manual_seed(0)
        return Answered(batch, model(*(numbers.to(dtype) for numbers in batch.inputs)).float())

    whole = answered(task.val_set)
    half = answered(beside_others(task.val_set, whole.batch.source.indices))
    losses = losses_of(task.objective, whole, half)
    return learnt_elsewhere(losses, model), depends_on_others(losses, whole, half)


@pytest.mark.parametrize(("name", "shape"), [("Centred", "(1,)"), ("CentredInTraining", "()")])
def test_weights_of_the_loss_are_refused(name: str, shape: str) -> None:
    (problem,), _ = problems_of(name)
    assert problem.startswith(
        f"the task's objective: the loss depends on a weight of the shape {shape} that is none of"
    )


@pytest.mark.parametrize("name", ["CentredAndFrozen", "Differentiating", "WithTheModel", "Noisy"])
def test_losses_of_what_the_model_learns_are_not(name: str) -> None:
    assert problems_of(name) == ([], False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", ["BatchMean", "Broadcast", "Contrastive", "PaddedUnmasked"])
def test_losses_of_the_whole_batch_are_told(name: str, dtype: torch.dtype) -> None:
    assert problems_of(name, dtype=dtype) == ([], True)
    assert problems_of(name, micro_batch=2, dtype=dtype) == ([], True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("micro_batch", [1, 2, 7, 40])
@pytest.mark.parametrize("name", ["Noisy", "Padded"])
def test_losses_of_each_example_alone_are_not(name: str, micro_batch: int, dtype: torch.dtype) -> None:
    assert problems_of(name, micro_batch, dtype) == ([], False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "status", "told"),
    [
        ("Centred", 2, "none of the model's, so it is neither trained nor saved"),
        ("Contrastive", 0, NOT_ALONE),
        ("Padded", 0, None),
    ],
)
def test_ranks_of_which_each_has_a_part_of_the_weights_look_together(
    tmp_path: Path, name: str, status: int, told: str | None
) -> None:
    config = ROOT / "ds_configs" / "bf16_zero3.json"
    flags = ["--deepspeed_config", config, "--task", f"own_objectives:{name}", "--dry_run", "--runs_dir", tmp_path]
    ended = ends_of_ranks(TRAIN, 2, flags, timeout_s=120)
    output = "".join(text for _, text in ended)
    assert [code for code, _ in ended] == [status, status], output
    assert output.count(told) == 1 if told else NOT_ALONE not in output, output


@pytest.mark.slow
@pytest.mark.parametrize("config", ["fp32", "bf16_zero3"])
def test_sparse_gradients_are_told(tmp_path: Path, config: str) -> None:
    flags = ["--task", "own_objectives:SparseTable", "--dry_run", "--runs_dir", tmp_path]
    ended = run([sys.executable, TRAIN, "--deepspeed_config", ROOT / "ds_configs" / f"{config}.json", *flags])
    assert ended.returncode == 2, ended.stdout
    assert "the task's model: a weight has sparse gradients, which cannot be trained here; expected" in ended.stdout
