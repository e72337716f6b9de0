"""Models adapted to examples without labels: better where these are like those of training moved, no worse where they
show few of the classes, and scored on what they have not met."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from own_tasks import Drawn
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ds_trainer import adaptation
from ds_trainer.adaptation import adapt, validate_adapted
from ds_trainer.classification import classification_objective
from ds_trainer.errors import TaskError

NUM_CLASSES, NUM_EACH = 6, 40


def drawn(classes: range, moved: float = 0.0) -> tuple[Tensor, Tensor]:
    """Points around a circle, `NUM_EACH` of each class, all turned about its centre by so many radians."""
    targets_N = torch.tensor(classes).repeat(NUM_EACH)
    angles_N = targets_N * (2 * torch.pi / NUM_CLASSES) + moved
    noise_N2 = 0.15 * torch.randn(len(targets_N), 2, generator=torch.Generator().manual_seed(len(classes)))
    return torch.stack([angles_N.cos(), angles_N.sin()], 1) + noise_N2, targets_N


@pytest.fixture(autouse=True)
def _large_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a model of 300 weights, where a recogniser has half a million that each move a little."""
    monkeypatch.setattr(adaptation, "LEARNING_RATE", 3e-3)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 32), nn.GELU(), nn.Dropout(0.5), nn.Linear(32, NUM_CLASSES))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    points_N2, targets_N = drawn(range(NUM_CLASSES))
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(points_N2), targets_N).backward()
        optimizer.step()
    return model.eval()


def right(model: nn.Module, points_N2: Tensor, targets_N: Tensor) -> float:
    with torch.no_grad():
        return (model(points_N2).argmax(1) == targets_N).double().mean().item()


def on(model: nn.Module, points_N2: Tensor) -> nn.Module:
    return adapted(model, *points_N2.split(20))


def adapted(model: nn.Module, *batches: Tensor, temperature: float = 1.0) -> nn.Module:
    own = copy.deepcopy(model)
    adapt(own, [(batch,) for batch in batches], temperature)
    return own


def test_examples_like_those_of_training_but_moved_are_recognised_better(model: nn.Module) -> None:
    points_N2, targets_N = drawn(range(NUM_CLASSES), moved=0.4)
    own = on(model, points_N2)
    assert right(model, points_N2, targets_N) < 0.8
    assert right(own, points_N2, targets_N) > 0.95
    others_N2, targets_N = drawn(range(NUM_CLASSES), moved=0.42)
    assert right(own, others_N2, targets_N) > 0.95 > right(model, others_N2, targets_N) + 0.2, "others like them, too"
    again = on(model, points_N2)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in own.state_dict().items())
    points_N2, targets_N = (each[targets_N.argsort()] for each in drawn(range(NUM_CLASSES), moved=0.4))
    assert right(on(model, points_N2), points_N2, targets_N) > 0.9, (
        "also of one class a batch, no batch of which varies"
    )


@pytest.mark.parametrize(("more", "temperature"), [(None, 0.5), (-1e4, 1.0), (-torch.inf, 1.0)])
def test_answers_that_say_the_same_end_as_the_same_model(
    model: nn.Sequential, more: float | None, temperature: float
) -> None:
    """Of logits that are half as large, or have one of a class that is never answered, or ruled out."""
    points_N2, _ = drawn(range(NUM_CLASSES), moved=0.4)
    own = nn.Sequential(*model, Halving() if more is None else nn.ConstantPad1d((0, 1), more))
    found = adapted(own, *points_N2.split(20), temperature=temperature)
    for weight, expected in zip(found.parameters(), on(model, points_N2).parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=0, atol=1e-3)


def test_example_that_the_model_cannot_answer_is_left_out(model: nn.Module) -> None:
    points_N2, _ = drawn(range(NUM_CLASSES), moved=0.4)
    expected = adapted(model, points_N2[:30]).state_dict()
    with_nan = torch.cat([points_N2[:30], torch.full((1, 2), torch.nan)])
    nothing = torch.full((2, 2), torch.inf)
    found = adapted(model, with_nan, nothing).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    same = adapted(model, nothing).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in model.state_dict().items())


def test_frozen_weights_stay_frozen(model: nn.Module) -> None:
    frozen = copy.deepcopy(model)
    frozen[0].requires_grad_(False)  # type: ignore[index]
    points_N2, _ = drawn(range(NUM_CLASSES), moved=0.4)
    changed = [
        name
        for name, value in on(frozen, points_N2).state_dict().items()
        if not torch.equal(value, model.state_dict()[name])
    ]
    assert changed == ["3.weight", "3.bias"]


@pytest.mark.parametrize("num_shown", [1, 2])
def test_examples_of_few_classes_are_not_spread_over_all(model: nn.Module, num_shown: int) -> None:
    points_N2, targets_N = drawn(range(num_shown))
    assert right(on(model, points_N2), points_N2, targets_N) >= right(model, points_N2, targets_N) - 0.02


def test_answers_do_not_end_as_one_class(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they would by being sure alone."""
    monkeypatch.setattr(adaptation, "LEARNING_RATE", 0.05)
    points_N2, _ = drawn(range(NUM_CLASSES), moved=0.5)
    answers = on(model, points_N2)(points_N2).argmax(1).bincount(minlength=NUM_CLASSES)
    monkeypatch.setattr(adaptation, "VARIETY_WEIGHT", 0.0)
    of_the_sure = on(model, points_N2)(points_N2).argmax(1).bincount(minlength=NUM_CLASSES)
    assert (answers > 0).sum() > (of_the_sure > 0).sum()


def test_gradient_of_the_variety_is_that_of_all_examples_together() -> None:
    """Of the mean answer to all of them, whichever are in the batch."""
    torch.manual_seed(0)
    logits_NS = torch.randn(8, 5, requires_grad=True)
    log_answers_NS = logits_NS.log_softmax(1)
    mean_S = log_answers_NS.exp().mean(0)
    never, always = torch.tensor(-1.0), torch.tensor(9.0)
    lacking, enough = (adaptation._loss(log_answers_NS, mean_S.detach(), least) for least in (always, never))
    (found,) = torch.autograd.grad(lacking - enough, logits_NS, retain_graph=True)
    (expected,) = torch.autograd.grad(2.0 * (mean_S * mean_S.log()).sum(), logits_NS)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("layer", [torch.jit.script, nn.utils.weight_norm], ids=["scripted", "weight norm"])
def test_model_with_parts_that_cannot_be_copied(
    layer: Callable[[nn.Module], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both are old, and in use
        model = nn.Sequential(layer(nn.Linear(2, 8)), nn.GELU(), nn.Linear(8, NUM_CLASSES))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    changed = []

    def looking(model: nn.Module, *others: Any) -> None:
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "of no other half"
        adapt(model, *others)
        changed.append([name for name, value in model.state_dict().items() if not torch.equal(value, before[name])])

    monkeypatch.setattr(adaptation, "adapt", looking)
    dataset = TensorDataset(*drawn(range(NUM_CLASSES), moved=0.4))
    validate_adapted(model, Drawn.__new__(Drawn), classification_objective(NUM_CLASSES), dataset, 30, 1.0)
    assert changed == [list(before)] * 2
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "it ends as it was"


def test_model_may_change_in_place_what_it_is_given(model: nn.Sequential) -> None:
    points_N2, _ = drawn(range(NUM_CLASSES), moved=0.4)
    halved = nn.Sequential(nn.Threshold(-9.0, 0.0, inplace=True), Halving(), *copy.deepcopy(model))
    expected = nn.Sequential(*(copy.deepcopy(layer) for layer in model))
    for found, weight in zip(on(halved, 2 * points_N2).parameters(), on(expected, points_N2).parameters(), strict=True):
        assert torch.equal(found, weight)


class Halving(nn.Module):
    def forward(self, points_B2: Tensor) -> Tensor:
        return points_B2.mul_(0.5)


def test_model_without_gradient_is_told(model: nn.Module) -> None:
    frozen = copy.deepcopy(model).requires_grad_(False)
    with pytest.raises(TaskError, match=r"^the task's model: its answers have no gradient in evaluation mode"):
        on(frozen, drawn(range(NUM_CLASSES))[0])


class Grouped(Drawn):
    """Examples of two groups and one more, in turn."""

    def groups(self, dataset: Any) -> list[str]:
        return [("ann", "bob")[number % 2] for number in range(len(dataset) - 1)] + ["cid"]


def test_each_example_is_scored_by_a_model_adapted_to_others_of_its_group(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = []

    def move(model: Telling, batches: list[tuple[Tensor]], temperature: float) -> None:
        """Have the model know which examples it was adapted to."""
        assert temperature == 0.5
        numbers_N = torch.cat([batch for (batch,) in batches])[:, 0].int()
        known.append(numbers_N.tolist())
        model.met_N[numbers_N] = True

    monkeypatch.setattr(adaptation, "adapt", move)
    monkeypatch.setattr(adaptation, "EXAMPLES_AT_ONCE", 4)
    task = Grouped.__new__(Grouped)
    numbers_N = torch.arange(32)
    points_N2 = torch.stack([numbers_N.float(), numbers_N.float()], 1)
    dataset = TensorDataset(points_N2, numbers_N % NUM_CLASSES)
    metrics = validate_adapted(Telling(), task, classification_objective(NUM_CLASSES), dataset, 3, 0.5)
    assert sorted(number for numbers in known for number in numbers) == list(range(31)), "each once but the lone one"
    assert {len(numbers) for numbers in known} == {7, 8}
    assert all(min(numbers) < 16 <= max(numbers) for numbers in known), "at random: they may come class by class"
    assert metrics.named["top1"] == pytest.approx(31 / 32), "and it is scored by the model as it was"
    np.testing.assert_array_equal(metrics.measures_NM[:, 0], numbers_N % NUM_CLASSES)
    logits_NS = nn.functional.one_hot(numbers_N % NUM_CLASSES) * numbers_N[:, None] / 9
    expected_N = nn.functional.cross_entropy(logits_NS, numbers_N % NUM_CLASSES, reduction="none").double()
    torch.testing.assert_close(metrics.losses_N[:31], expected_N[:31], rtol=0, atol=1e-6)


class Telling(nn.Module):
    """A model that knows all, and later ones better, where it was adapted to others of the group; where to none, it
    takes all for class 0."""

    met_N: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("met_N", torch.zeros(32, dtype=torch.bool))

    def forward(self, points_B2: Tensor) -> Tensor:
        scored_B, met = points_B2[:, 0].long(), self.met_N.nonzero().flatten()
        assert not self.met_N[scored_B].any()
        assert len(met) == 0 or set((scored_B % 2).tolist()) == set((met % 2).tolist())
        return nn.functional.one_hot(scored_B % NUM_CLASSES * (len(met) > 0), NUM_CLASSES) * points_B2[:, :1] / 9


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and there is none")
def test_model_with_an_lstm_is_adapted_on_a_gpu() -> None:
    """cuDNN has no backward pass of one in evaluation mode."""

    class Last(nn.LSTM):
        def forward(self, clips_BTC: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(clips_BTC)[0][:, -1]

    model = Last(4, 3, batch_first=True).cuda().eval()
    own = adapted(model, torch.randn(5, 6, 4, device="cuda"))
    assert not torch.equal(own.weight_ih_l0, model.weight_ih_l0)  # type: ignore[arg-type]
