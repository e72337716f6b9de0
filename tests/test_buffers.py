"""Unit: what a skipped step did to buffers is taken back, whichever way a module changes them."""

import pytest
import torch
from numerics.modules import Buffers
from torch import nn

from ds_trainer.engine.buffers import HeldBuffers

BAD = torch.full((3, 16), float("nan"))


def scripted() -> nn.Module:
    return nn.Sequential(torch.jit.script(nn.BatchNorm1d(16)))


@pytest.mark.parametrize("make", [lambda: nn.BatchNorm1d(16), Buffers, scripted], ids=["norm", "own", "scripted"])
def test_a_skipped_step_leaves_buffers_as_they_were(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = make()
    held = HeldBuffers(model)
    model(torch.randn(3, 16))
    held.after_step(torch.tensor(0.0))
    after_first = {name: buffer.clone() for name, buffer in model.state_dict().items() if buffer.is_floating_point()}
    assert any((buffer != 0).any() for buffer in after_first.values())
    for _ in range(2):
        model(BAD)
        held.after_step(torch.tensor(1.0))
        assert all(torch.equal(model.state_dict()[name], buffer) for name, buffer in after_first.items())
    model(torch.randn(3, 16))
    held.after_step(torch.tensor(0.0))
    state = model.state_dict()
    assert all(state[name].isfinite().all() for name in after_first)
    assert any(not torch.equal(state[name], buffer) for name, buffer in after_first.items())


def test_large_tables_that_nothing_changes_are_not_copied() -> None:
    model = nn.Module()
    model.register_buffer("table", torch.arange(4.0))
    held = HeldBuffers(model)
    with torch.profiler.profile(acc_events=True) as profile:  # torch 2.11 warns without
        held.after_step(torch.tensor(1.0))
    assert not {event.key for event in profile.key_averages()} & {"aten::where", "aten::copy_", "aten::clone"}
