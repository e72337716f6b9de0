"""Two ways of saying the same give the same numbers: the contract that every change of the trainer must keep.

Each world size trains the toy task in all ways once (worker.py); the tests compare. Tolerances: 0 where the
arithmetic is the same; 1e-6 where only the order of float32 sums differs (8 steps, weights below 1).
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import run_ranks
from torch.nn.utils import clip_grad_norm_

from ds_trainer.batches import BatchLoader, ShardedSampler
from ds_trainer.tasks.toy.task import ToyTask
from ds_trainer.validation import validate
from numerics import worker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Results = dict[int, dict[str, dict[str, Any]]]
WORKER = Path(worker.__file__)


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Outcome by world size and case."""
    out = tmp_path_factory.mktemp("numerics")
    found = {}
    for world_size in (1, 2, 3):
        run_ranks(WORKER, world_size, [out], timeout_s=400)
        found[world_size] = torch.load(out / f"world_{world_size}.pt", weights_only=False)
    return found


def farthest(one: dict[str, Any], other: dict[str, Any], which: str = "weights") -> float:
    """The largest difference between two outcomes' weights, or averaged ones."""
    assert one[which].keys() == other[which].keys()
    return max(float((one[which][name] - other[which][name]).abs().max()) for name in one[which])


@pytest.fixture(scope="session")
def reference() -> dict[str, Any]:
    """Two epochs of plain PyTorch: no engine, no ranks, no accumulation."""
    task = ToyTask(worker.SETTINGS)
    torch.manual_seed(worker.SETTINGS.seed)
    model = task.build_model()
    matrices = [weight for weight in model.parameters() if weight.ndim == 2]
    others = [weight for weight in model.parameters() if weight.ndim == 1]
    groups = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    sampler = ShardedSampler(len(task.train_set), worker.GLOBAL_BATCH, seed=worker.SETTINGS.seed)
    averaged: dict[str, Any] = {}
    rates: list[float] = []
    step = 0
    for epoch in range(2):
        sampler.set_epoch(epoch)
        for batch in BatchLoader(task.train_set, sampler, task.prepare):
            losses_B = task.objective.loss(model(*batch.inputs), batch.targets)
            optimizer.zero_grad()
            losses_B[batch.weight_B > 0].mean().backward()
            clip_grad_norm_(model.parameters(), 1.0)
            rates.append(0.01 * min(1, (step + 1) / 2, (8 - step) / 4))  # half an epoch up, one down, of 4 steps
            for group in optimizer.param_groups:
                group["lr"] = rates[-1]
            optimizer.step()
            left = min(worker.SETTINGS.weight_average_decay, (1 + step) / (10 + step))
            for name, weight in model.state_dict().items():
                averaged[name] = left * averaged[name] + (1 - left) * weight if step else weight.clone()
            step += 1
    val_dl = BatchLoader(task.val_set, ShardedSampler(len(task.val_set), 7), task.prepare)
    val_loss = validate(model, task.objective, val_dl).loss
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.load_state_dict(averaged)
    averaged_loss = validate(model, task.objective, val_dl).loss
    return {
        "weights": weights,
        "val_loss": val_loss,
        "averaged": averaged,
        "averaged_loss": averaged_loss,
        "rates": rates,
    }


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("case", ["fp32 stage 0", "fp32 stage 1", "fp32 stage 2", "fp32 stage 3", "accumulated"])
def test_engine_trains_like_plain_pytorch(
    results: Results, reference: dict[str, Any], world_size: int, case: str
) -> None:
    outcome = results[world_size][case]
    assert outcome["steps"] == 8
    assert farthest(outcome, reference) < 1e-6
    assert abs(outcome["val_loss"] - reference["val_loss"]) < 1e-6
    rates = [record["learning_rate"] for record in outcome["records"] if record["kind"] == "step"]
    assert rates == pytest.approx(reference["rates"])


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("case", ["fp32 stage 0", "fp32 stage 1", "fp32 stage 2", "fp32 stage 3", "accumulated"])
def test_averaged_weights_are_those_of_plain_pytorch(
    results: Results, reference: dict[str, Any], world_size: int, case: str
) -> None:
    outcome = results[world_size][case]
    assert farthest(outcome, reference, "averaged") < 1e-6
    assert farthest(outcome, {"averaged": outcome["weights"]}, "averaged") > 1e-3, "an average is something else"
    assert abs(outcome["averaged_loss"] - reference["averaged_loss"]) < 1e-6


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("case", ["fp32 0", "fp32 1", "bf16 1", "bf16 2", "bf16 3"])
def test_averaged_weights_are_what_is_validated_and_saved(results: Results, world_size: int, case: str) -> None:
    outcome = results[world_size][f"straight {case}"]
    last = max(record["epoch"] for record in outcome["records"] if record["kind"] == "epoch")
    assert outcome["best"]["epoch"] == last, "or the test says nothing"
    assert farthest(outcome, {"averaged": outcome["best"]["state_dict"]}, "averaged") == 0
    assert outcome["best"]["metrics"]["val_loss"] == outcome["averaged_loss"]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("case", ["fp32 stage 1", "accumulated"])
def test_step_lines_tell_the_mean_loss_of_the_step(results: Results, world_size: int, case: str) -> None:
    """On any number of ranks, also where the last step of an epoch leaves some of them fewer examples."""
    of_one, found = (
        [record["loss"] for record in outcome["records"] if record["kind"] == "step"]
        for outcome in (results[1]["fp32 stage 1"], results[world_size][case])
    )
    assert len(of_one) == 8
    assert found == pytest.approx(of_one, abs=1e-6)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("stage", [1, 2])
def test_zero_stages_agree_in_bf16(results: Results, world_size: int, stage: int) -> None:
    """Ranks sum bf16 gradients in another order at stage 0: on one rank there is nothing to sum."""
    outcome, stage_0 = results[world_size][f"bf16 stage {stage}"], results[world_size]["bf16 stage 0"]
    assert farthest(outcome, stage_0) <= (0 if world_size == 1 else 2e-2)
    assert abs(outcome["val_loss"] - stage_0["val_loss"]) <= (0 if world_size == 1 else 2e-3)


def test_bf16_checkpoints_hold_full_precision(results: Results) -> None:
    for stage in (0, 1, 2):
        weights = results[1][f"bf16 stage {stage}"]["weights"]
        assert all(value.dtype == torch.float32 for value in weights.values())
        assert any((value != value.bfloat16().float()).any() for value in weights.values()), f"rounded at stage {stage}"


WAYS_TO_RESUME = [
    f"{where} {precision} {stage}"
    for where in ("resumed", "mid-epoch")
    for precision in ("fp32", "bf16")
    for stage in (0, 1, 2)
]


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("case", [*WAYS_TO_RESUME, "resumed bf16 3"])
def test_resumed_run_ends_bit_for_bit_like_a_straight_one(results: Results, world_size: int, case: str) -> None:
    straight = results[world_size]["straight " + case.split(" ", 1)[1]]
    resumed = results[world_size][case]
    assert farthest(resumed, straight) == 0
    assert resumed["val_loss"] == straight["val_loss"]
    for one, other in zip(resumed["moments"], straight["moments"], strict=True):
        assert all(torch.equal(torch.as_tensor(one[name]), torch.as_tensor(other[name])) for name in other)
    timeless = [
        [
            {name: value for name, value in record.items() if name not in ("seconds", "examples_per_second")}
            for record in outcome["records"]
        ]
        for outcome in (resumed, straight)
    ]
    assert timeless[0] == timeless[1]
    rates = [record["learning_rate"] for record in straight["records"] if record["kind"] == "epoch"]
    full = [rate / fraction for rate, fraction in zip(rates, (1, 1, 1, 1 / 4), strict=True)]  # it cools down at the end
    falls = {"fp32": [0.01, 0.01, 0.002, 0.0004], "bf16": [0.01, 0.01, 0.01, 0.002]}
    if not case.endswith("bf16 3"):
        assert full == pytest.approx(falls[case.split()[1]]), "or the test says nothing of the plateau"


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_plateau_shrinks_the_steps_that_are_taken(
    results: Results, world_size: int, stage: int, precision: str
) -> None:
    effect = results[world_size][f"plateau {precision} {stage}"]
    assert effect["rate_before"] == pytest.approx(0.01)
    assert effect["rate_after"] == pytest.approx(0.002)
    # Adam moves the fastest weight by about the learning rate, and weight decay by a hundredth of it.
    assert effect["before"] == pytest.approx(0.01, rel=0.05)
    assert effect["after"] == pytest.approx(0.002, rel=0.05)


def test_validation_of_equal_weights_is_the_same_on_any_number_of_ranks(tmp_path: Path) -> None:
    """Also where clips do not divide by ranks or batches: 50 clips in batches of 7."""
    script = WORKER.with_name("validation_worker.py")
    for world_size in (1, 2, 3):
        run_ranks(script, world_size, [tmp_path])
    one, two, three = (torch.load(tmp_path / f"world_{world_size}.pt") for world_size in (1, 2, 3))
    for other in (two, three):
        assert other["loss"] == one["loss"]
        assert other["named"] == one["named"]
        assert torch.equal(other["measures"], one["measures"])
        assert torch.equal(other["losses"], one["losses"])
        assert torch.equal(other["confusion"], one["confusion"])
    assert one["confusion"].sum() == 50


def test_any_number_of_ranks_continues_with_equal_weights_and_moments(tmp_path: Path) -> None:
    """2 -> 1 -> 3 -> 2 ranks, ZeRO 0 to 3, bf16 and fp32; the worker compares, the moments' sum must differ from 0."""
    script = WORKER.with_name("world_size_worker.py")
    for session, world_size in enumerate((2, 1, 3, 2)):
        run_ranks(script, world_size, [tmp_path, str(session)])
    sessions = [json.loads(line) for line in (tmp_path / "sessions.jsonl").read_text().splitlines()]
    assert len(sessions) == 8 * 4
    for session in sessions:
        assert session["differing"] == []
        assert session["largest moment"] > 0
        assert session["all heard of the full disk"]
    losses = {name: [s["val_loss"] for s in sessions if s["case"] == name] for name in {s["case"] for s in sessions}}
    for name, fall in losses.items():
        assert fall == sorted(fall, reverse=True), f"{name}: training goes on where it was: {fall}"


@pytest.mark.parametrize("world_size", [1, 2])
def test_step_with_a_gradient_that_is_not_finite_leaves_everything_as_it_was(tmp_path: Path, world_size: int) -> None:
    run_ranks(WORKER.with_name("skip_worker.py"), world_size, [tmp_path])
    results = json.loads((tmp_path / f"world_{world_size}.json").read_text())
    assert len(results) == 8
    skipped, taken = {"same": True, "counted": False, "skipped": 1.0}, {"same": False, "counted": True, "skipped": 0.0}
    for case, outcomes in results.items():
        assert outcomes == [skipped, skipped, taken], case
