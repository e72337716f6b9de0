"""Synthetic clips: the same for the same settings, like recordings in form, and with signs that can be learned."""

import json
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from launching import ROOT, succeed, train_here

from ds_trainer.errors import SettingsError
from ds_trainer.tasks.sign.clips import RawClip
from ds_trainer.tasks.sign.known_layouts import layout_for
from ds_trainer.tasks.sign.normalisation import normalise
from ds_trainer.tasks.sign.prepare import main, resolve_synthetic
from ds_trainer.tasks.sign.sampling import Sampling
from ds_trainer.tasks.sign.splits import SplitRule, make_splits
from ds_trainer.tasks.sign.store import ClipStore
from ds_trainer.tasks.sign.synthetic import SyntheticSettings, synthetic_source
from ds_trainer.tasks.sign.synthetic_body import keypoints_of

NUM_KEYPOINTS = {"karsl": 184, "holistic_75": 75, "holistic_543": 543}


def settings(**changed: object) -> SyntheticSettings:
    small = {"num_clips": 24, "num_signs": 4, "num_signers": 2, "min_frames": 8, "max_frames": 14}
    return SyntheticSettings.model_validate(small | changed)


def clips(**changed: object) -> list[RawClip]:
    made = synthetic_source(settings(**changed)).clips
    return [clip for clip in made if isinstance(clip, RawClip)]


def contents(made: list[RawClip]) -> list[tuple[bytes, int, str, str, str]]:
    return [(clip.frames.tobytes(), clip.sign, clip.signer, clip.split, clip.clip_id) for clip in made]


def test_same_settings_give_the_same_clips() -> None:
    assert contents(clips()) == contents(clips())


def test_fewer_clips_are_the_first_of_more() -> None:
    assert contents(clips(num_clips=9)) == contents(clips())[:9]


def test_seed_decides() -> None:
    assert {frames for frames, *_ in contents(clips())}.isdisjoint(frames for frames, *_ in contents(clips(seed=1)))


def test_no_clip_is_made_before_it_is_asked_for() -> None:
    made = synthetic_source(settings(num_clips=10**9)).clips
    assert len(list(islice(made, 3))) == 3


@pytest.mark.parametrize(("layout", "num_keypoints"), NUM_KEYPOINTS.items())
def test_store_has_the_form_that_was_asked_for(tmp_path: Path, layout: str, num_keypoints: int) -> None:
    store = ClipStore.open(resolve_synthetic(settings(layout=layout), tmp_path))
    assert store.frames.shape[1:] == (num_keypoints, 4)
    assert store.layout.parts.keys() >= {"pose", "left_hand", "right_hand"}
    lengths = np.diff(store.offsets)
    assert 8 <= lengths.min() < lengths.max() <= 14
    assert (store.sign_names, store.signer_names) == (["1", "2", "3", "4"], ["01", "02"])
    assert len(set(store.clip_ids)) == len(store) == 24


def test_all_clips_may_be_of_one_length() -> None:
    assert {len(clip.frames) for clip in clips(min_frames=1, max_frames=1)} == {1}


def test_of_fifty_clips_of_a_sign_by_a_signer_eight_test(tmp_path: Path) -> None:
    store = ClipStore.open(resolve_synthetic(settings(num_clips=50 * 8, min_frames=1, max_frames=2), tmp_path))
    splits = make_splits(store, SplitRule(split="own"))
    of_test = [(store.sign[clip], store.signer[clip]) for clip in splits.test]
    assert {(sign, signer): of_test.count((sign, signer)) for sign, signer in of_test} == {
        (sign, signer): 8 for sign in range(4) for signer in range(2)
    }
    assert splits.test.min() >= 8, "the first clip of a sign by a signer trains"
    assert splits.test.min() < 16, "a small store has a test split too"


@pytest.mark.parametrize(("layout", "num_keypoints"), NUM_KEYPOINTS.items())
def test_body_fits_its_layout(layout: str, num_keypoints: int) -> None:
    """What the layout calls the left hand ends at the left wrist, and the mirror image of the body is a body."""
    known = layout_for(num_keypoints, 4)
    joint_K, offset_K3 = keypoints_of(layout)
    mirror = np.array(known.mirror)
    np.testing.assert_array_equal(offset_K3[mirror], offset_K3 * (-1, 1, 1))
    left_wrist, right_wrist = (4, 5) if layout == "karsl" else (15, 16)
    assert joint_K[known.part_roots["left_hand"]] == joint_K[left_wrist]
    assert joint_K[known.part_roots["right_hand"]] == joint_K[right_wrist]
    assert offset_K3[known.centre[0], 0] > 0, "the signer's left is right in an image"


def test_signers_stand_within_the_image() -> None:
    for clip in clips(num_signers=12):
        shoulders_T2C = clip.frames[:, :2]
        assert 0.15 < (shoulders_T2C[:, 0, 0] - shoulders_T2C[:, 1, 0]).mean() < 0.35
        assert (shoulders_T2C[..., :2] > 0.2).all()
        assert (shoulders_T2C[..., :2] < 0.8).all()


def test_missing_hands_are_zeros() -> None:
    layout = layout_for(184, 4)
    made = clips(num_clips=200)
    fractions = []
    for part, keypoints in layout.parts.items():
        of_part = np.concatenate([clip.frames[:, list(keypoints)] for clip in made])
        is_missing_T = (of_part == 0).all(axis=(1, 2))
        assert (of_part[~is_missing_T][..., :3] != 0).any(-1).all(), "a hand is missing as a whole"
        visibility = of_part[~is_missing_T][..., 3]
        assert visibility.min() > 0
        assert visibility.max() <= 1
        fractions.append((part, is_missing_T.mean()))
    assert dict(fractions[:2]) == {"pose": 0, "face": 0}
    assert all(0.02 < fraction < 0.5 for _, fraction in fractions[2:])


def _normalised(store: ClipStore) -> torch.Tensor:
    """All that a model sees of the pose and the hands of each clip: [B, N]."""
    first, lengths = torch.from_numpy(store.offsets[:-1]), torch.from_numpy(np.diff(store.offsets))
    frames_BT = Sampling(16).frames(first, lengths, None)
    clips_BTKC = normalise(torch.from_numpy(store.frames[frames_BT.numpy()]), store.layout, 1.0, None, True)
    keypoints = [keypoint for part, of_part in store.layout.parts.items() if part != "face" for keypoint in of_part]
    return clips_BTKC[:, :, keypoints, :3].flatten(1)


@pytest.mark.parametrize("split", ["own", "signer:03"])
def test_signs_can_be_told_apart_yet_not_with_ease(tmp_path: Path, split: str) -> None:
    """By the nearest neighbour in training, among 20 signs: chance is 0.05."""
    store = ClipStore.open(resolve_synthetic(SyntheticSettings(num_clips=600, num_signs=20), tmp_path))
    splits = make_splits(store, SplitRule(split=split))
    features, sign = _normalised(store), torch.from_numpy(store.sign)
    known = np.concatenate([splits.train, splits.val])
    nearest = torch.cdist(features[splits.test], features[known]).argmin(1)
    accuracy = (sign[known][nearest] == sign[splits.test]).double().mean()
    assert 0.6 < accuracy < 0.98


@pytest.fixture
def prepare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """The command line of launch/prepare.py in this process: its status and what it says."""

    def run(*flags: str) -> tuple[int, str]:
        status = main([*flags, "--stores_dir", str(tmp_path / "stores")])
        return status, capsys.readouterr().out

    return run


Prepare = Callable[..., tuple[int, str]]
KARSL_LINE = "karsl_184: 184 keypoints x 4 (x, y, z, visibility)"
SMALL = ("--source", "synthetic", "--num_clips", "8", "--num_signs", "2", "--max_frames", "30")


def test_second_call_does_nothing(tmp_path: Path, prepare: Prepare) -> None:
    status, told = prepare(*SMALL)
    (store_dir,) = (tmp_path / "stores").glob("synthetic_8-*")
    assert (status, told) == (0, f"{store_dir}: 8 clips, 2 signs, 3 signers, {KARSL_LINE}\n")
    written = {file: file.stat().st_mtime_ns for file in store_dir.iterdir()}
    assert prepare(*SMALL) == (0, told)
    assert {file: file.stat().st_mtime_ns for file in store_dir.iterdir()} == written
    assert prepare("--data", str(store_dir)) == (0, told), "what was written is what is read"
    prepare(*SMALL, "--seed", "1")
    assert len(list((tmp_path / "stores").glob("synthetic_8-*"))) == 2


@pytest.mark.parametrize(
    ("flags", "problems"),
    [
        ([], ["--num_clips: missing; expected how many clips to make"]),
        (["--num_clips", "0"], ["--num_clips: found '0'; input should be greater than or equal to 1"]),
        (
            ["--num_clips", "9" * 30, "--seed", "-1"],
            [
                f"--num_clips: found '{'9' * 30}'; input should be less than or equal to 1000000000",
                "--seed: found '-1'; input should be greater than or equal to 0",
            ],
        ),
        (["--num_clips", "ten"], ["--num_clips: found 'ten'; input should be a valid integer"]),
        (
            ["--num_clips", "1", "--min_frames", "60", "--max_frames", "30"],
            ["--min_frames 60 lies above max_frames 30; swap them"],
        ),
        (["--num_clips", "1", "--layout", "184"], ["--layout: found '184'; input should be 'karsl', 'holistic_75'"]),
        (["--num_clips", "1", "--labels", "x"], ["--labels: found with --source synthetic"]),
    ],
)
def test_bad_arguments_are_told_and_leave_nothing(
    tmp_path: Path, prepare: Prepare, flags: list[str], problems: list[str]
) -> None:
    status, told = prepare("--source", "synthetic", *flags)
    assert status == 2
    lines = told.splitlines()
    assert len(lines) == len(problems)
    assert all(line.startswith(f"error: {problem}") for line, problem in zip(lines, problems, strict=True)), told
    assert not (tmp_path / "stores").exists()


def test_what_only_synthetic_clips_take_is_refused_with_data(prepare: Prepare) -> None:
    assert prepare("--data", "default", "--num_signs", "3") == (
        2,
        "error: --num_signs: found with --data, expected only with --source synthetic; leave it out\n",
    )


@pytest.mark.parametrize("flags", [["--data", "default", "--source", "synthetic"], [], ["--source", "elsewhere"]])
def test_either_data_or_a_source(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(flags)
    assert ended.value.code == 2
    assert "--source" in capsys.readouterr().err


def test_all_problems_of_settings_are_told_together() -> None:
    with pytest.raises(SettingsError) as caught:
        SyntheticSettings.from_flags({"num_clips": "-3", "num_signs": "x"})
    assert len(caught.value.problems) == 2


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_tiny_model_learns_signs_of_unseen_clips(tmp_path: Path) -> None:
    """What the command lines promise: 1,000 clips of 20 signs, a few epochs; chance is 0.05."""
    made = ["--num_clips", "1000", "--num_signs", "20", "--stores_dir", tmp_path]
    told = succeed([sys.executable, "launch/prepare.py", "--source", "synthetic", *made])
    store_dir = told.split(": 1000 clips")[0].splitlines()[-1]
    small = ["--model_size", "t_2_2", "--num_frames", "16", "--num_epochs", "8", "--runs_dir", tmp_path / "runs"]
    config = ROOT / "ds_configs" / "fp32.json"
    train_here("--deepspeed_config", config, "--data", store_dir, *small)
    (metrics,) = (tmp_path / "runs").glob("*/metrics.jsonl")
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    (accuracy,) = [record["top1"] for record in records if record["kind"] == "test"]
    assert accuracy > 0.6
