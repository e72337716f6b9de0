"""What a model sees does not depend on keypoints that it does not look at; compiled, it differs by rounding alone."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ds_trainer.randomness import Draw
from ds_trainer.tasks.sign.augmentation import Augmentation
from ds_trainer.tasks.sign.features import FEATURES
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


def test_a_face_is_left_out_where_hands_are_looked_at() -> None:
    layout = LAYOUTS["holistic_543x4"]
    assert len(preprocessing(layout, SAMPLING).taken) > 500
    used = preprocessing(layout, SAMPLING, parts=["left_hand", "right_hand"])
    assert set(used.layout.parts) == {"pose", "left_hand", "right_hand"}
    assert len(used.taken) == 2 * 21 + 2, "both hands, and the shoulders"
    assert LOWER_BODY not in preprocessing(LAYOUTS["kinect_20x3"], SAMPLING).layout.parts


def assert_same_compiled(used: Preprocessing, recorded: Tensor, changes: dict[str, float], backend: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(used.of_sampled, dynamic=False, fullgraph=True, backend=backend)
    augmentation, fraction = Augmentation(**changes), 0.3 if changes else 0.0
    for epoch in range(3):
        draw = Draw.of(0, epoch, torch.arange(len(recorded)) + epoch)
        with torch.compiler.set_stance("fail_on_recompile" if epoch else "default"):
            seen = compiled(recorded, draw, augmentation, fraction)
        expected = used.of_sampled(recorded, draw, augmentation, fraction)
        torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_it_is_one_graph_for_all_epochs(name: str, changes: dict[str, float]) -> None:
    """As a GPU runs it, captured here and run without a compiler."""
    layout = LAYOUTS[name]
    used = preprocessing(layout, SAMPLING if changes else Sampling(12), FEATURES if changes else ("place",))
    assert_same_compiled(used, clips(layout, num_frames=24 if changes else 12, missing=0.1), changes, "aot_eager")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # by the compiler's own use of it
def test_compiled_numbers_are_the_same() -> None:
    """Of the fewest keypoints with bones and a mirror: it takes a minute."""
    layout = LAYOUTS["kinect_20x3"]
    used = preprocessing(layout, SAMPLING, FEATURES)
    assert_same_compiled(used, clips(layout, num_frames=24, missing=0.1), EVERYTHING, "inductor")
