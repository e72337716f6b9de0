"""Batches compiled as a GPU has them: one graph for all epochs, whose numbers differ by rounding alone."""

import functools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.exc import BackendCompilerFailed
from torch.fx import GraphModule

from ds_trainer.randomness import Draw
from ds_trainer.tasks.sign.augmentation import Augmentation
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.on_device import compiled

from .examples import EVERYTHING, IN_PLANE, LAYOUTS, in_training


def run_as_captured(graph: GraphModule, inputs: list[Tensor]) -> Any:
    """A backend that compiles nothing, and refuses what would be copied to the device anew in each call."""

    def refuse_constants(captured: GraphModule, _: list[Tensor]) -> Any:
        made = [str(node) for node in captured.graph.nodes if node.target is torch.ops.aten.lift_fresh_copy.default]
        assert not made, "numbers are given to the graph as tensors, not made in it"
        return captured.forward

    return aot_autograd(fw_compiler=refuse_constants)(graph, inputs)


def assert_same_compiled(
    layout: KeypointLayout, changes: dict[str, float], backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, fullgraph=True, backend=backend))
    used, recorded = in_training(layout, changes)
    of_sampled, augmentation = compiled(used.of_sampled), Augmentation(**changes)
    for epoch in range(3):
        given = (
            recorded,
            Draw.of(0, epoch, torch.arange(len(recorded)) + epoch),
            augmentation,
            0.0 if changes == IN_PLANE else 0.3,
        )
        with torch.compiler.set_stance("fail_on_recompile" if epoch else "default"):
            seen = of_sampled(*given)
        torch.testing.assert_close(seen, used.of_sampled(*given), rtol=1e-4, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [IN_PLANE, EVERYTHING], ids=["in_plane", "everything"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_it_is_one_graph_for_all_epochs(name: str, changes: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU runs it, captured here and run without a compiler."""
    assert_same_compiled(LAYOUTS[name], changes, run_as_captured, monkeypatch)


def test_numbers_made_in_a_graph_are_noticed() -> None:
    """Were they not, the test above could not fail."""
    torch.compiler.reset()
    made = torch.compile(lambda values: values[torch.tensor([1, 0])], backend=run_as_captured)
    with pytest.raises(BackendCompilerFailed, match="not made in it"):
        made(torch.ones(2))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_compiled_numbers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the fewest keypoints with bones and a mirror: it takes a minute."""
    assert_same_compiled(LAYOUTS["kinect_20x3"], EVERYTHING, "inductor", monkeypatch)
