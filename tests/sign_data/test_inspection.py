"""What launch/inspect_data.py tells of a store is what was written into it."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ds_trainer.command_line import load_settings
from ds_trainer.task import load_task_type
from ds_trainer.tasks.sign.inspection import augmented, describe_store, main, missing_fractions
from ds_trainer.tasks.sign.known_layouts import layout_for
from ds_trainer.tasks.sign.skeleton_plots import apart
from ds_trainer.tasks.sign.store import ClipStore
from ds_trainer.tasks.sign.store_writer import write_store
from ds_trainer.tasks.sign.synthetic import SyntheticSettings, synthetic_source
from ds_trainer.tasks.sign.task import SignTask

from .writers import grid, source


@pytest.fixture
def store(tmp_path: Path) -> ClipStore:
    """Three signers of kinect_20; the second never shows the left arm, and the third has no depth; one clip is a copy,
    one is blank."""
    rng = np.random.default_rng(0)
    clips = []
    for clip in grid(signs=2, signers=3, repetitions=2):
        frames = rng.random((5 + clip.sign, 20, 3), dtype=np.float32) + 0.1
        if clip.signer == "s02":
            frames[:, [2, 4, 6, 8]] = 0
        if clip.signer == "s03":
            frames[..., 2] = 0
        clips.append(replace(clip, frames=frames))
    clips[1] = replace(clips[1], frames=clips[0].frames.copy())
    clips[5] = replace(clips[5], frames=np.zeros_like(clips[5].frames))
    write_store(tmp_path / "store", source(clips, num_signs=2))
    return ClipStore.open(tmp_path / "store")


def test_counts_lengths_copies_and_missing_parts(store: ClipStore) -> None:
    lines = list(describe_store(store, np.arange(len(store))))
    text = "\n".join(lines)
    assert "12 clips of 2 signs by 3 signers, kinect_20: 20 keypoints x 3 (x, y, z)" in text
    assert "frames a clip: 6 to 7" in text
    assert f"copies, frame for frame: 1 ({store.clip_ids[1]} of {store.clip_ids[0]})" in lines
    assert f"clips in which all is missing: 1 ({store.clip_ids[5]})" in lines
    assert "clips of fewer than 5 frames: 0" in lines
    header, *rows = (line.split() for line in lines[-4:])
    assert header[:3] == ["signer", "clips", "frames"]
    no_left_arm = {row[0]: row[5] for row in rows}
    assert no_left_arm["s02"] == "100.0"
    assert no_left_arm["s01"] == "0.0"
    assert header[-2:] == ["no", "z"]
    assert {row[0]: row[-2] for row in rows if row[0] != "s02"} == {"s01": "0.0", "s03": "100.0"}
    assert [row[1] for row in rows] == ["4", "4", "4"]


def test_missing_is_the_fraction_of_frames_without_the_whole_part(store: ClipStore) -> None:
    frames = store.clip_frames(0).copy()
    frames[:2, list(store.layout.parts["head"])] = 0
    frames[3, store.layout.parts["head"][0]] = 0
    assert missing_fractions(frames, store).tolist() == pytest.approx([2 / len(frames), 0, 0, 0])


def test_hands_are_drawn_beside_the_body_and_missing_points_nowhere() -> None:
    layout = layout_for(75, 3)
    clip = np.full((3, 75, 3), 0.2, dtype=np.float32)
    clip[0, list(layout.parts["left_hand"])] = 0
    moved = apart(clip, layout)
    left, right, pose = (list(layout.parts[part]) for part in ("left_hand", "right_hand", "pose"))
    assert (moved[0, left] == 0).all()
    assert (moved[1:, left, 0] == np.float32(0.2 - 2.5)).all()
    assert (moved[:, right, 0] == np.float32(0.2 + 2.5)).all()
    assert (moved[:, pose] == clip[:, pose]).all()


def test_command_draws_samples_and_each_augmentation(
    store: ClipStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = ["--data", str(store.path), "--split", "random", "--val_fraction", "0.3", "--out_dir", str(out)]
    assert main([*flags, "--augment", "--noise", "0.05"]) == 0
    told = f"copies, frame for frame: 1 of 12 clips ({store.clip_ids[1]} of {store.clip_ids[0]}); a recording counts"
    assert told in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {"samples.png", "augmentation.png", "clips_by_sign.csv"}
    assert all(path.stat().st_size > 20_000 for path in out.glob("*.png"))
    heading, *rows = csv.reader((out / "clips_by_sign.csv").read_text(encoding="utf-8").splitlines())
    assert heading == ["number", "sign", "clips", *store.signer_names]
    assert [[int(row[2]), *map(int, row[3:])] for row in rows] == [[6, 2, 2, 2]] * 2


def test_clips_of_one_number_a_keypoint_are_drawn_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    angles = [replace(clip, frames=rng.random((8, 5, 1), dtype=np.float32)) for clip in grid(2, 2, 2)]
    write_store(tmp_path / "store", source(angles, num_signs=2))
    out_dir = tmp_path / "out"
    assert main(["--data", str(tmp_path / "store"), "--augment", "--out_dir", str(out_dir)]) == 0
    assert (out_dir / "samples.png").exists()
    assert (out_dir / "augmentation.png").exists()


def test_only_what_is_selected_is_told_and_counted(
    store: ClipStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    selection = ["--signers", "s01,s03", "--selected_signs_from", "2", "--val_fraction", "0.5"]
    assert main(["--data", str(store.path), *selection, "--out_dir", str(out)]) == 0
    told = capsys.readouterr().out
    assert "4 clips of 1 signs by 2 signers, kinect_20" in told
    assert "frames a clip: 7 to 7" in told
    assert "copies, frame for frame: 0\n" in told
    assert "clips in which all is missing: 0\n" in told
    assert "s02 " not in told
    rows = list(csv.reader((out / "clips_by_sign.csv").read_text(encoding="utf-8").splitlines()))
    assert rows == [["number", "sign", "clips", "s01", "s03"], ["2", "2", "4", "2", "2"]]


def test_augmentation_is_drawn_whatever_the_model_sees_and_whatever_trains(store: ClipStore, tmp_path: Path) -> None:
    drawn = []
    for number, flags in enumerate((["--features", "velocity,bone"], ["--features", "place,velocity"])):
        out = ["--out_dir", str(tmp_path / str(number))]
        assert main(["--data", str(store.path), "--split", "all", "--augment", *flags, *out]) == 0
        drawn.append((tmp_path / str(number) / "augmentation.png").read_bytes())
    assert drawn[0] == drawn[1]


def test_a_turn_is_drawn_as_training_turns(tmp_path: Path) -> None:
    """Distances in space stay, where the depth is not what was recorded, but counts less: else it would be a shear."""
    clips = SyntheticSettings(num_clips=12, num_signs=2, num_signers=2, layout="holistic_75")
    write_store(tmp_path / "store", synthetic_source(clips))
    flags = ["--deepspeed_config", "unused", "--data", str(tmp_path / "store"), "--max_turn_degrees", "40"]
    task = SignTask(load_settings([*flags, "--parts", "pose"], load_task_type))
    shown = augmented(task)
    weight_D, body = torch.tensor([1, 1, 0.3]), task.preprocessing.parts[0]
    one, other = (shown[name][0, :, body, :3] / weight_D for name in ("as it is", "max_turn_degrees"))
    assert not torch.allclose(one, other, atol=0.1)
    torch.testing.assert_close(torch.cdist(one, one), torch.cdist(other, other), rtol=1e-3, atol=1e-3)


def test_wrong_flag_is_told_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dataa", "x"]) == 2
    assert "did you mean" in capsys.readouterr().out


def test_file_in_place_of_the_folder_is_told(
    store: ClipStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what cannot be written into one: by a folder of that name, as permissions are no limit to root."""
    flags = ["--data", str(store.path), "--split", "all", "--out_dir", str(tmp_path / "out")]
    (tmp_path / "out").touch()
    assert main(flags) == 2
    assert f"{tmp_path / 'out'}: cannot be written (File exists)" in capsys.readouterr().out
    (tmp_path / "out").unlink()
    for name in ("samples.png", "clips_by_sign.csv"):
        (tmp_path / "out" / name).mkdir(parents=True)
        assert main(flags) == 2
        assert f"{tmp_path / 'out' / name}: cannot be written (Is a directory)" in capsys.readouterr().out
        (tmp_path / "out" / name).rmdir()


@pytest.mark.parametrize("name", ["toy", "own_tasks:Drawn"])
def test_task_without_clips_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--task", name]) == 2
    assert f"--task: found {name}, expected sign: other tasks have no clips" in capsys.readouterr().out
