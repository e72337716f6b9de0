"""Footage becomes keypoints that training and predict.py read: with MediaPipe, in an environment of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from launching import ROOT, clean_environment, run, succeed, train_here

from ds_trainer.tasks.sign.known_layouts import layout_for

from .writers import write_index

PYTHON = ROOT / ".venv-video" / "bin" / "python"
NUM_FRAMES = 12
SHIFT_PX, WIDTH, HEIGHT = 2, 512, 600
MAKE_FOOTAGE = f"""
import pathlib, sys
import cv2, numpy
from matplotlib import cbook, image
photograph = cv2.cvtColor(numpy.array(image.imread(cbook.get_sample_data("grace_hopper.jpg"))), cv2.COLOR_RGB2BGR)
frames = [numpy.roll(photograph, {SHIFT_PX} * number, axis=1)[:{HEIGHT}] for number in range({NUM_FRAMES})]
folder = pathlib.Path(sys.argv[1])
video = cv2.VideoWriter(str(folder / "word.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, ({WIDTH}, {HEIGHT}))
for frame in frames:
    video.write(frame)
video.release()
for signer, split in (("01", "train"), ("01", "test"), ("02", "train")):
    for sign in (1, 2):
        for name in ("a", "b"):
            clip = folder / "karsl" / signer / split / f"{{sign:04}}" / name
            clip.mkdir(parents=True)
            for number, frame in enumerate(frames):
                cv2.imwrite(str(clip / f"{{number:03}}.jpg"), frame)
"""


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not PYTHON.exists():
        pytest.skip("needs MediaPipe's own environment: make setup-video")
    path = tmp_path_factory.mktemp("footage")
    succeed([PYTHON, "-c", MAKE_FOOTAGE, path])
    return path


@pytest.mark.slow
def test_keypoints_are_where_the_person_is(footage: Path, tmp_path: Path) -> None:
    succeed([PYTHON, "launch/extract_keypoints.py", footage / "word.mp4", "--out", tmp_path])
    (frames_TKC,) = np.load(tmp_path / "word.npz").values()
    assert frames_TKC.shape == (NUM_FRAMES, 184, 4)
    layout = layout_for(184, 4)
    face_TD = frames_TKC[:, layout.parts["face"], :2].mean(1)
    steps = np.diff(face_TD[:, 0])
    assert np.median(steps) == pytest.approx(SHIFT_PX / HEIGHT, rel=0.3), "the photograph moves to the right"
    assert (face_TD > 0).all()
    assert (face_TD[:, 0] < WIDTH / HEIGHT).all(), "fractions of the larger side"
    left, right = frames_TKC[:, 0], frames_TKC[:, 1]
    assert (left[:, 0] > right[:, 0]).all(), "who faces the camera has the left shoulder on the right"
    assert (left[:, 2] + right[:, 2]).mean() == pytest.approx(0, abs=1e-5), "depth counts from the shoulders"
    assert (frames_TKC[:, list(layout.parts["right_hand"])] == 0).all(), "no hand is to be seen"


@pytest.mark.slow
def test_karsl_folders_become_what_training_reads(footage: Path, tmp_path: Path) -> None:
    """A bad frame is left out and told; what is there is not made again; a killed run goes on."""
    (footage / "karsl/01/train/0001/a/005.jpg").write_bytes(b"no picture")
    (footage / "karsl/01/train/0002/b").rename(tmp_path / "elsewhere")
    (footage / "karsl/01/train/0002/b.mp4").write_bytes(b"no video")
    out = tmp_path / "keypoints"
    command = [str(PYTHON), "launch/extract_keypoints.py", str(footage / "karsl"), "--out", str(out), "--jobs", "1"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=clean_environment(), stdout=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 90
    while not list(out.rglob("*.npz")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*.npz")}
    assert 0 < len(made) < 6
    finished = run(command)
    assert f"{len(made)} of 6 files are there already" in finished.stdout
    assert all(path.stat().st_mtime_ns == written for path, written in made.items())
    assert len(list(out.rglob("*.npz"))) == 6
    if out / "01-train" / "0002.npz" not in made:
        assert "b.mp4: cannot be opened" in finished.stdout
        assert finished.returncode == 2
    clips = {name: len(clip) for name, clip in np.load(out / "01-train" / "0001.npz").items()}
    assert clips == {"a": NUM_FRAMES - 1, "b": NUM_FRAMES}
    assert list(np.load(out / "01-train" / "0002.npz")) == ["a"]
    told = succeed([sys.executable, "launch/prepare.py", "--data", out, "--stores_dir", tmp_path / "stores"])
    assert "11 clips, 2 signs, 2 signers" in told


@pytest.mark.slow
@pytest.mark.parametrize("end", [os.kill, os.killpg])
def test_ctrl_c_ends_it_soon_and_it_goes_on(footage: Path, tmp_path: Path, end: Callable[[int, int], None]) -> None:
    """Whether the whole group of processes gets the signal, as from a terminal, or the first one alone."""
    (tmp_path / "mine").mkdir()
    for number in range(40):
        shutil.copy(footage / "word.mp4", tmp_path / "mine" / f"{number}.mp4")
    command = [PYTHON, "launch/extract_keypoints.py", tmp_path / "mine", "--out", tmp_path / "out", "--jobs", "2"]
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a background job inherits as ignored
    )
    deadline = time.monotonic() + 90
    while not list((tmp_path / "out").glob("*.npz")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    end(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert output.strip().endswith("stopped; the same command goes on where it was")
    assert len(list((tmp_path / "out").glob("*.npz"))) < 40


@pytest.mark.slow
@pytest.mark.parametrize("has_index", [False, True])
def test_folders_of_videos_become_what_training_reads(footage: Path, tmp_path: Path, has_index: bool) -> None:
    names = [f"{signer}/{sign}/1.mp4" for signer in ("ann", "bob") for sign in ("good bye", "مرحبا")]
    for name in names:
        (tmp_path / "mine" / name).parent.mkdir(parents=True)
        shutil.copy(footage / "word.mp4", tmp_path / "mine" / name)
    if has_index:
        rows = [{"path": name, "sign": name.split("/")[1], "signer": name.split("/")[0]} for name in names]
        write_index(tmp_path / "mine" / "index.csv", rows)
    succeed([PYTHON, "launch/extract_keypoints.py", tmp_path / "mine", "--out", tmp_path / "keypoints"])
    assert (tmp_path / "keypoints" / "index.csv").exists() == has_index
    told = succeed([sys.executable, "launch/prepare.py", "--data", tmp_path / "keypoints", "--stores_dir", tmp_path])
    assert "4 clips, 2 signs, 2 signers" in told


@pytest.mark.slow
def test_video_is_recognised_in_one_go(footage: Path, tmp_path: Path) -> None:
    """A model that was trained in the other environment answers to a video and to a folder of images, though there are
    no hands in them, as it looks at the arms as well."""
    train = ["--deepspeed_config", "ds_configs/fp32.json", "--num_epochs", "1"]
    train_here(*train, "--parts", "pose,left_hand,right_hand", "--runs_dir", tmp_path)
    (run_dir,) = (path for path in tmp_path.iterdir() if path.is_dir())
    images = footage / "karsl" / "02" / "train" / "0001" / "a"
    output = succeed([PYTHON, "launch/predict.py", run_dir, footage / "word.mp4", images, "--top", "3"])
    lines = output.strip().splitlines()
    assert [line.split()[0] for line in lines] == [str(footage / "word.mp4"), str(images)]
    assert all(len(line.split()) == 7 for line in lines)
