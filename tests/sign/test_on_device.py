"""Nothing is copied from the host anew for each batch but what is new in it: a GPU would be waited for each time."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ds_trainer.randomness import Draw
from ds_trainer.tasks.sign.augmentation import Augmentation
from ds_trainer.tasks.sign.features import num_features as size_of
from ds_trainer.tasks.sign.known_layouts import layout_for, notices_of
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.models import MODELS, ModelSpec
from ds_trainer.tasks.sign.models.size import ModelSize
from ds_trainer.tasks.sign.on_device import index_on, kept_on_device, picked
from ds_trainer.tasks.sign.sampling import Sampling

from .examples import EVERYTHING, IN_PLANE, LAYOUTS, clips, in_training, preprocessing

CPU = torch.device("cpu")
Step = Callable[[int], None]
"""Takes the number of an epoch."""


class Copies(TorchFunctionMode):
    """Notes what makes tensors of Python's numbers, on the way of any operation: on a GPU each such copy waits."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func in (torch.tensor, torch.as_tensor, torch.from_numpy):
            self.found.append(f"{func.__name__}{args}"[:100])
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            self.found += [f"index {part}"[:100] for part in index if isinstance(part, list)]
        return func(*args, **(kwargs or {}))


def training_step(layout: KeypointLayout, changes: dict[str, float], model: str, device: torch.device) -> Step:
    used, clips_BFKC = in_training(layout, changes)
    clips_BFKC = clips_BFKC.to(device)
    with device:
        size = ModelSize.parse("t_1_1")
        net = MODELS[model](ModelSpec(used.parts, size_of(layout, used.features), 3, 12, size, 0.3))

    def step(epoch: int) -> None:
        draw = Draw.of(0, epoch, torch.arange(6)).on(device)
        fraction = 0.0 if changes == IN_PLANE else 0.3
        net(used.of_sampled(clips_BFKC, draw, Augmentation(**changes), fraction)).sum().backward()

    return step


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("changes", [IN_PLANE, EVERYTHING], ids=["in_plane", "everything"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_batch_needs_no_other_copy_than_of_itself(
    layout: KeypointLayout, changes: dict[str, float], model: str
) -> None:
    step = training_step(layout, changes, model, CPU)
    step(0)
    with Copies() as copies:
        step(1)
    assert copies.found == []


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("changes", [IN_PLANE, EVERYTHING], ids=["in_plane", "everything"])
@pytest.mark.parametrize("num_features", [1, 5, 6])
def test_keypoints_without_known_coordinates_are_trained_on(
    num_features: int, changes: dict[str, float], model: str
) -> None:
    training_step(layout_for(7, num_features), changes, model, CPU)(0)


@pytest.mark.parametrize("num_features", [1, 6])
@pytest.mark.parametrize("num_keypoints", [7, 20, 184])
def test_numbers_that_nothing_is_known_of_are_passed_on_as_they_are(num_keypoints: int, num_features: int) -> None:
    layout = layout_for(num_keypoints, num_features)
    recorded = clips(layout, num_clips=3, num_frames=12)
    used = preprocessing(layout, Sampling(12), parts=layout.parts)
    draw = Draw.of(0, 0, torch.arange(3))
    seen = used.of_sampled(recorded, draw, Augmentation(mirror_fraction=0.9))
    assert torch.equal(seen, recorded[:, :, list(used.taken)])
    (told,) = notices_of(layout, recorded[0].numpy())
    assert "--layout says" in told


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("changes", [IN_PLANE, EVERYTHING], ids=["in_plane", "everything"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_batch_stays_on_its_device_and_asks_for_no_value(
    layout: KeypointLayout, changes: dict[str, float], model: str
) -> None:
    """On `meta`, which takes the ways of a GPU: it refuses tensors of the CPU, and has no values to wait for."""
    training_step(layout, changes, model, torch.device("meta"))(0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and there is none")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # a prototype, torch says
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("changes", [IN_PLANE, EVERYTHING], ids=["in_plane", "everything"])
def test_a_batch_does_not_wait_for_the_gpu(changes: dict[str, float], model: str) -> None:
    step = training_step(LAYOUTS["kinect_20x3"], changes, model, torch.device("cuda", 0))
    step(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_lists_and_new_tensors_are_noticed() -> None:
    """Were they not, the test above could not fail."""
    with Copies() as copies:
        torch.zeros(3)[[0, 1]] = 1
        torch.zeros(3)[torch.tensor([0, 1])]
    assert len(copies.found) == 2


def test_meta_refuses_what_a_gpu_would_wait_for_or_refuse() -> None:
    """Were it not so, the test above could not fail."""
    on_meta = torch.ones(3, device="meta")
    with pytest.raises(RuntimeError, match="device"):
        on_meta + torch.ones(3)
    with pytest.raises(RuntimeError, match="meta tensors"):
        bool(on_meta.sum() > 0)


def test_neighbours_are_a_slice_and_others_are_kept_on_the_device() -> None:
    assert picked((3, 4, 5), CPU) == slice(3, 6)
    index = picked([2, 4, 6], CPU)
    assert isinstance(index, Tensor)
    assert index.tolist() == [2, 4, 6]
    assert picked((2, 4, 6), CPU) is index


def test_what_was_first_needed_in_inference_serves_training_too() -> None:
    with torch.inference_mode():
        index = index_on((7, 5, 3), CPU)
    weights = torch.ones(8, requires_grad=True)
    weights[index].sum().backward()
    assert weights.grad is not None
    assert weights.grad.nonzero()[:, 0].tolist() == [3, 5, 7]


def test_what_is_first_needed_in_an_export_is_not_kept() -> None:
    made = []

    @kept_on_device
    def twos(number: int, device: torch.device) -> Tensor:
        made.append(number)
        return torch.full((number,), 2.0, device=device)

    class Doubled(torch.nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return values * twos(3, values.device)

    program = torch.export.export(Doubled(), (torch.ones(3),)).module()
    assert program(torch.ones(3)).tolist() == [2.0, 2.0, 2.0]
    assert (twos(3, CPU) + 1).tolist() == [3.0, 3.0, 3.0]
    assert twos(3, CPU) is twos(3, CPU)
    assert len(made) == 2, "once in the export, once to keep"
    again = torch.export.export(Doubled(), (torch.ones(3),)).module()
    assert again(torch.ones(3)).tolist() == [2.0, 2.0, 2.0], "what is kept serves an export, too"
    assert len(made) == 2
