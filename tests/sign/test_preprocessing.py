"""What a model sees does not depend on keypoints that it does not look at; compiled, it differs by rounding alone."""

import functools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.exc import BackendCompilerFailed
from torch.fx import GraphModule

from ds_trainer.randomness import Draw
from ds_trainer.tasks.sign.augmentation import Augmentation
from ds_trainer.tasks.sign.constants import compiled
from ds_trainer.tasks.sign.features import FEATURES, PLACE
from ds_trainer.tasks.sign.layout import LOWER_BODY, KeypointLayout
from ds_trainer.tasks.sign.preprocessing import Preprocessing
from ds_trainer.tasks.sign.sampling import Sampling

from .examples import EVERYTHING, LAYOUTS, clips, preprocessing

PARTS = [(name, part) for name, layout in LAYOUTS.items() for part in layout.parts]
SAMPLING = Sampling(12, motion_fraction=0.5, max_tempo_fraction=0.5, max_cut_fraction=0.1)


def over_everything(used: Preprocessing, layout: KeypointLayout) -> Preprocessing:
    """The same for a model that looks at the same keypoints, without leaving any out."""
    everything = tuple(range(layout.num_keypoints))
    parts = [[used.taken[keypoint] for keypoint in part] for part in used.parts]
    return replace(used, taken=everything, layout=layout, parts=parts)


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_what_is_left_out_changes_nothing(name: str, part: str) -> None:
    layout = LAYOUTS[name]
    used = preprocessing(layout, SAMPLING, FEATURES, [part])
    recorded = clips(layout, num_frames=24, missing=0.2)
    whole = over_everything(used, layout).of_sampled(recorded)
    torch.testing.assert_close(used.of_sampled(recorded), whole[:, :, list(used.taken)], rtol=1e-4, atol=1e-4)
    seen = [used.taken[keypoint] for part in used.parts for keypoint in part]
    assert seen == list(layout.parts[part])


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_keypoints_of_a_part_are_neighbours(layout: KeypointLayout) -> None:
    """So that a model takes slices."""
    for parts in ([], [*layout.parts][::-1]):
        used = preprocessing(layout, SAMPLING, parts=parts)
        assert [keypoint for part in used.parts for keypoint in part] == list(range(sum(map(len, used.parts))))


def test_a_face_is_left_out_where_hands_are_looked_at() -> None:
    layout = LAYOUTS["holistic_543x4"]
    assert len(preprocessing(layout, SAMPLING).taken) > 500
    used = preprocessing(layout, SAMPLING, parts=["left_hand", "right_hand"])
    assert set(used.layout.parts) == {"pose", "left_hand", "right_hand"}
    assert len(used.taken) == 2 * 21 + 2, "both hands, and the shoulders"
    assert LOWER_BODY not in preprocessing(LAYOUTS["kinect_20x3"], SAMPLING).layout.parts


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
    used = preprocessing(layout, SAMPLING if changes else Sampling(12), FEATURES if changes else (PLACE,))
    recorded = clips(layout, num_frames=24 if changes else 12, missing=0.1)
    of_sampled, augmentation = compiled(used.of_sampled), Augmentation(**changes)
    for epoch in range(3):
        given = (
            recorded,
            Draw.of(0, epoch, torch.arange(len(recorded)) + epoch),
            augmentation,
            0.3 if changes else 0.0,
        )
        with torch.compiler.set_stance("fail_on_recompile" if epoch else "default"):
            seen = of_sampled(*given)
        torch.testing.assert_close(seen, used.of_sampled(*given), rtol=1e-4, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["plain", "everything"])
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
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # by the compiler's own use of it
def test_compiled_numbers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the fewest keypoints with bones and a mirror: it takes a minute."""
    assert_same_compiled(LAYOUTS["kinect_20x3"], EVERYTHING, "inductor", monkeypatch)
