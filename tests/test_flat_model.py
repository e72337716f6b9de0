"""A model behind flat parameters computes and learns what it did before."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ds_trainer.engine.flat_model import FlatModel, can_be_flat
from ds_trainer.engine.parameter_groups import treatments
from ds_trainer.errors import TaskError


class Mixture(nn.Module):
    """Tied and frozen weights, a buffer, a recurrent layer, a recomputed layer, a look at its own parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8, bias=False)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.inner = nn.Linear(8, 8)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(8, 6, bias=False)
        self.back = nn.Linear(6, 8, bias=False)
        self.back.weight = self.embed.weight
        self.register_buffer("shift", torch.randn(8))

    def forward(self, values_BTC: Tensor) -> Tensor:
        tokens_BTD = self.frozen(self.embed(values_BTC)) + self.shift
        tokens_BTD = checkpoint(self.inner, tokens_BTD.to(next(self.parameters()).dtype), use_reentrant=False)
        tokens_BTD = self.norm(self.lstm(tokens_BTD)[0] + tokens_BTD)
        return self.back(self.out(tokens_BTD))


def flat_model(model: nn.Module, most_numbers: int, dtype: torch.dtype | None = None) -> FlatModel:
    return FlatModel(model, most_numbers, dtype, treatments(model, lambda name: 1.0))


def gradients(flat: FlatModel) -> dict[str, Tensor]:
    """By the names of the model, those of flat weights and those that it kept."""
    grads = [parameter.grad for parameter in flat.flats]
    found = {name: own.of(grads[own.flat]) for name, own in flat.slices.items() if grads[own.flat] is not None}
    kept = {name.removeprefix("model."): value.grad for name, value in flat.named_parameters() if "flats" not in name}
    return found | {name: grad for name, grad in kept.items() if grad is not None}


@pytest.mark.parametrize("most_numbers", [1, 100, 10**6])
def test_outputs_and_gradients_are_the_same_bits(most_numbers: int) -> None:
    torch.manual_seed(0)
    plain = Mixture()
    flat = flat_model(copy.deepcopy(plain), most_numbers)
    for values in torch.randn(2, 3, 5, 6):
        for model in (plain, flat):
            model.zero_grad()
            model(values).square().sum().backward()
        assert torch.equal(flat(values), plain(values))
        expected = {name: weight.grad for name, weight in plain.named_parameters() if weight.requires_grad}
        found = gradients(flat)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


class Hoarding(nn.Module):
    """Keeps a weight of its layer in a list, too, and computes with that."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.weights = [self.layer.weight]

    def forward(self, values_BC: Tensor) -> Tensor:
        return nn.functional.linear(values_BC, self.weights[0])


def test_a_weight_that_is_kept_elsewhere_is_refused() -> None:
    """It would stay as it is, and nothing would be said."""
    flat = flat_model(Hoarding(), 10**6)
    with pytest.raises(TaskError, match=r"expected self\.layer\.weight, read in the forward pass"):
        flat(torch.ones(2, 6))


def test_few_parameters_are_left() -> None:
    flat = flat_model(Mixture(), 10**6)
    names = {name for name, _ in flat.named_parameters()}
    assert {name for name in names if not name.startswith(("model.lstm", "model.frozen"))} == {"flats.0", "flats.1"}
    with torch.no_grad():
        flat(torch.randn(1, 2, 6))
    assert {name for name, _ in flat.named_parameters()} == names, "not those that the model sees in a pass"


def test_weights_are_divided_by_type_and_weight_decay_and_between_neighbours() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4).double(), nn.Linear(100, 1))
    flat = flat_model(model, 40)
    assert [parameter.numel() for parameter in flat.flats] == [32, 16, 100, 8, 4, 1]
    decaying = [flat.treatment_of(parameter).decays for parameter in flat.flats]
    assert decaying == [True, True, True, False, False, False]


def test_names_of_the_state_are_the_models_and_tied_ones_point_to_the_first() -> None:
    model = Mixture()
    expected = list(model.state_dict())
    flat = flat_model(model, 10**6)
    assert list(flat.state_names) == expected
    assert {name: own for name, own in flat.state_names.items() if name != own} == {"back.weight": "embed.weight"}


def test_weights_are_not_flat_where_layers_are_treated_by_themselves() -> None:
    assert can_be_flat({"zero_optimization": {"stage": 2}, "data_types": {"grad_accum_dtype": "fp32"}})
    assert not can_be_flat({"zero_optimization": {"stage": 3}})
    assert not can_be_flat({"data_types": {"keep_in_fp32_modules": ["norm"]}})


def test_model_computes_in_another_type_than_its_weights_have() -> None:
    torch.manual_seed(0)
    plain = Mixture().bfloat16()
    values = torch.randn(2, 3, 6)
    expected = copy.deepcopy(plain).float()(values)
    outputs = flat_model(plain, 10**6, torch.float32)(values)
    assert outputs.dtype == torch.float32
    assert torch.equal(outputs, expected)


class Bounded(nn.Module):
    """Changes its weights in place in the forward pass, as some do to bound them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 4), nn.Linear(4, 2)

    def forward(self, values: Tensor) -> Tensor:
        with torch.no_grad():
            self.first.weight.div_(self.first.weight.norm(dim=1, keepdim=True))
            self.last.bias.clamp_(-0.1, 0.1)
        outputs: Tensor = self.last(self.first(values))
        return outputs


def test_weights_may_be_changed_in_the_forward_pass() -> None:
    torch.manual_seed(0)
    plain = Bounded()
    flat = flat_model(copy.deepcopy(plain), 10**6)
    for values in torch.randn(2, 3, 6):
        for model in (plain, flat):
            model.zero_grad()
            model(values).square().sum().backward()
        assert torch.equal(flat(values), plain(values))
        expected = {name: weight.grad for name, weight in plain.named_parameters()}
        assert all(torch.equal(grad, expected[name]) for name, grad in gradients(flat).items())
