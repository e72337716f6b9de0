"""Unit: batches of the sign task, as a model gets them."""

import pytest
import torch

from ds_trainer.randomness import Draw
from ds_trainer.tasks.sign.settings import SignSettings

from .examples import AS_IT_IS, REPETITIONS, SIGNERS, SIGNS, BuildTask, batch, normalise


@pytest.mark.parametrize("clip", [0, 2, 47])
def test_clip_is_evaluated_as_it_was_recorded(build: BuildTask, clip: int) -> None:
    task = build(**AS_IT_IS)
    recorded = torch.from_numpy(task.store.clip_frames(clip).copy())
    places = [int((place + 0.5) / 6 * len(recorded)) for place in range(6)]
    clips_BTKC, _ = batch(task, [clip])
    normalised = normalise(recorded[None, places], task.store.layout)
    torch.testing.assert_close(clips_BTKC, normalised[:, :, list(task.preprocessing.taken)])


def test_clips_come_out_the_same_in_any_batch(build: BuildTask) -> None:
    task = build()
    together, signs = batch(task, [0, 20, 47, 3])
    num_features = 3 + 1 + 3 + 3  # place, presence, velocity, bone
    assert together.shape == (4, 6, 10, num_features), "without legs, which the model does not look at"
    assert together.dtype == torch.float32
    for place, clip in enumerate([0, 20, 47, 3]):
        alone, sign = batch(task, [clip])
        assert torch.equal(alone[0], together[place])
        assert sign.item() == signs[place] == task.store.sign[clip]


def test_augmentation_is_a_function_of_seed_epoch_and_clip(build: BuildTask) -> None:
    task = build()
    together, _ = batch(task, [5, 6, 7], Draw.of(1, 2, torch.tensor([5, 6, 7])))
    alone, _ = batch(task, [6], Draw.of(1, 2, torch.tensor([6])))
    torch.testing.assert_close(alone[0], together[1], rtol=0, atol=1e-6)
    as_it_is, _ = batch(task, [6])
    for other in (Draw.of(1, 3, torch.tensor([6])), Draw.of(2, 2, torch.tensor([6])), None):
        assert not torch.equal(batch(task, [6], other)[0], alone)
    assert torch.equal(batch(task, [6])[0], as_it_is)


def test_augmentation_can_be_switched_off(build: BuildTask) -> None:
    none = {name: 0.0 for name in SignSettings.model_fields if name.startswith(("max_", "noise")) or "mask" in name}
    task = build(**none, **AS_IT_IS, num_frames=2)
    two_frames = 0  # the first repetition has two frames, so that the jitter has no choice
    changed, _ = batch(task, [two_frames], Draw.of(1, 2, torch.tensor([two_frames])))
    assert torch.equal(changed, batch(task, [two_frames])[0])
    whole = build(**none, **AS_IT_IS, mirror_fraction=1.0, num_frames=2)
    assert not torch.equal(batch(whole, [two_frames], Draw.of(1, 2, torch.tensor([two_frames])))[0], changed)


def test_preparing_leaves_the_store_alone(build: BuildTask) -> None:
    task = build()
    before = task.store.frames[:].copy()
    clips_BTKC, _ = batch(task, [0, 1])
    clips_BTKC.zero_()
    assert (task.store.frames == before).all()


def test_what_is_evaluated_is_prepared_and_described_as_it_was_trained(build: BuildTask) -> None:
    """Whatever the data at hand says of hands and of lengths."""
    now = {**AS_IT_IS, "num_frames": 4}
    trained = build(**now, depth_weight=0.0).description()
    assert trained["depth_weight"] == 0, "not that of the layout, which none would get"
    trained |= {"mirrors_left_handed": False, "num_read": 9, "rest_fraction": 0.25}
    task = build(**now)
    assert not (batch(task, [7])[0][..., 2] == 0).any()
    task.number_as_in(trained)
    assert (batch(task, [7])[0][..., 2] == 0).all()
    assert task.preprocessing.sampling.num_read == 9
    assert {**task.description(), "depth_weight": 0.0} == trained, "or it would be refused as other data"


@pytest.mark.parametrize("name", ["max_tempo_fraction", "max_cut_fraction"])
def test_time_passes_otherwise_in_training_alone(build: BuildTask, name: str) -> None:
    none = {name: 0.0 for name in SignSettings.model_fields if name.startswith(("max_", "noise")) or "mask" in name}
    plain, uneven = (build(**{**none, **given}) for given in ({}, {name: 0.4}))
    draw = Draw.of(1, 2, torch.arange(SIGNS * SIGNERS * REPETITIONS))
    every = list(range(SIGNS * SIGNERS * REPETITIONS))
    assert not torch.equal(batch(plain, every, draw)[0], batch(uneven, every, draw)[0])
    assert torch.equal(batch(plain, every)[0], batch(uneven, every)[0])
