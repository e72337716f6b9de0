"""What a model sees where it is used is what it saw in evaluation, from the checkpoint's description alone."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ds_trainer.command_line import load_settings
from ds_trainer.randomness import Draw
from ds_trainer.task import load_task_type
from ds_trainer.tasks.sign.augmentation import Augmentation
from ds_trainer.tasks.sign.features import FEATURES
from ds_trainer.tasks.sign.preprocessing import Preprocessing, Recogniser
from ds_trainer.tasks.sign.sampling import REST_FRACTION, Sampling
from ds_trainer.tasks.sign.store_writer import write_store
from ds_trainer.tasks.sign.synthetic import SyntheticSettings, synthetic_source
from ds_trainer.tasks.sign.task import SignTask

from .examples import LAYOUTS, clips, preprocessing

WAYS: dict[str, list[str]] = {
    "as it is": [],
    "by motion": ["--motion_fraction", "0.7"],
    "features": ["--features", "place,presence,velocity,acceleration,bone", "--depth_weight", "0.3"],
    "parts": ["--parts", "right_hand,left_hand", "--motion_fraction", "0.5", "--features", "bone"],
}


@pytest.fixture(params=["karsl", "holistic_75"], scope="module")
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / request.param
    small = {"num_clips": 24, "num_signs": 3, "num_signers": 2, "min_frames": 5, "max_frames": 40}
    write_store(path, synthetic_source(SyntheticSettings.model_validate({**small, "layout": request.param})))
    return path


@pytest.mark.parametrize("way", WAYS)
def test_recorded_clips_are_seen_as_in_evaluation(store: Path, way: str) -> None:
    flags = ["--deepspeed_config", "unused", "--data", str(store), "--num_frames", "12", *WAYS[way]]
    settings: Any = load_settings(flags, load_task_type)
    task = SignTask(settings)
    items = torch.tensor(task.train_set.clips[:6])  # type: ignore[attr-defined]
    (expected_BTKC,), _ = task.prepare(items, torch.device("cpu"), None)
    recorded = [torch.from_numpy(task.store.clip_frames(int(item)).copy()) for item in items]
    num_frames_B = torch.tensor([len(clip) for clip in recorded])
    padded_BNKC = torch.full((6, 60, *recorded[0].shape[1:]), 7.0)
    for row, clip in zip(padded_BNKC, recorded, strict=True):
        row[: len(clip)] = clip
    description = json.loads(json.dumps(task.description()))
    found_BTKC = Preprocessing.of(description)(padded_BNKC, num_frames_B)
    assert torch.equal(found_BTKC, expected_BTKC)


def test_each_number_is_the_one_that_the_checkpoint_has() -> None:
    """None is that of a model that says nothing, nor of the data at hand."""
    described = {
        "layout": LAYOUTS["kinect_20x3"].to_dict(),
        "parts": {"right_arm": [8, 9, 10, 11], "left_arm": [4, 5, 6, 7]},
        "num_frames": 3,
        "motion_fraction": 0.75,
        "num_read": 40,
        "rest_fraction": 0.125,
        "depth_weight": 0.25,
        "features": ["bone", "place"],
        "mirrors_left_handed": False,
    }
    used = Preprocessing.of(described)
    assert used.sampling == Sampling(3, motion_fraction=0.75, num_read=40, rest_fraction=0.125)
    assert (used.depth_weight, used.features, used.mirrors_left_handed) == (0.25, ["bone", "place"], False)
    assert [[used.taken[keypoint] for keypoint in part] for part in used.parts] == [[8, 9, 10, 11], [4, 5, 6, 7]]


@pytest.mark.slow  # torch takes 5 s or more for each
@pytest.mark.parametrize("name", ["kinect_20x3", "holistic_75x4"])
def test_its_graph_takes_any_number_of_clips_and_frames(name: str) -> None:
    """Of bodies with hands and without, whose clips are mirrored by what else moves."""
    layout = LAYOUTS[name]
    sampling = Sampling(12, motion_fraction=0.5, rest_fraction=REST_FRACTION)
    used = replace(preprocessing(layout, sampling, FEATURES), mirrors_left_handed=True)
    any_number = torch.export.Dim("clips", min=1), torch.export.Dim("frames", min=1)
    program = torch.export.export(
        Recogniser(used, nn.Identity()),
        (clips(layout, num_clips=2, num_frames=40), torch.tensor([40, 23])),
        dynamic_shapes=(dict(enumerate(any_number)), {0: any_number[0]}),
        strict=False,
    )
    for num_clips, num_frames in ((1, 1), (1, 9), (5, 50)):
        recorded = clips(layout, num_clips, num_frames, missing=0.1)
        num_frames_B = torch.full((num_clips,), num_frames)
        found_BTKC = program.module()(recorded, num_frames_B)
        torch.testing.assert_close(found_BTKC, used(recorded, num_frames_B), rtol=1e-5, atol=1e-5)


def test_body_is_turned_in_training_as_it_stood_whatever_its_depth_counts() -> None:
    """Up to its size, which counts depth, too."""
    layout = LAYOUTS["kinect_20x3"]
    used, recorded = preprocessing(layout, Sampling(6)), clips(layout, num_clips=3, num_frames=6)
    draw, turned = Draw.of(0, 0, torch.arange(3)), Augmentation(max_turn_degrees=40)
    whole, flat = (replace(used, depth_weight=weight).of_sampled(recorded, draw, turned) for weight in (1.0, 0.25))
    deepened = flat * torch.tensor([1.0, 1.0, 4.0])
    whole, deepened = (each / each.square().sum((1, 2, 3), keepdim=True).sqrt() for each in (whole, deepened))
    torch.testing.assert_close(deepened, whole, rtol=1e-4, atol=1e-5)
