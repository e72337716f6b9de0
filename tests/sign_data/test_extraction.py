"""From footage to keypoints: the real MediaPipe in its own environment, on a photograph that moves."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from launching import ROOT, clean_environment, run, succeed

from ds_trainer.errors import DataError, WriteError
from ds_trainer.tasks.sign.extraction import command
from ds_trainer.tasks.sign.extraction.footage import images_in
from ds_trainer.tasks.sign.extraction.index import rows_of
from ds_trainer.tasks.sign.extraction.index import write_index as write_index_of_keypoints
from ds_trainer.tasks.sign.extraction.work import Piece, pieces_of
from ds_trainer.tasks.sign.known_layouts import layout_for
from ds_trainer.tasks.sign.readers.clip_table import read_index
from ds_trainer.tasks.sign.readers.npz_file import load_arrays

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


def test_pieces_of_karsl_and_of_any_folder(tmp_path: Path) -> None:
    karsl = ("karsl/01/train/0001/a/000.jpg", "karsl/01/train/0001/b.mp4", "karsl/03/test/0502/c/1.PNG")
    for path in (*karsl, "mine/x/y.mov"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "mine" / "notes.txt").touch()
    first, second = pieces_of(tmp_path / "karsl", tmp_path / "out")
    assert first.out == tmp_path / "out" / "01-train" / "0001.npz"
    assert list(first.clips) == ["a", "b"]
    assert second.out == tmp_path / "out" / "03-test" / "0502.npz"
    (mine,) = pieces_of(tmp_path / "mine", tmp_path / "out")
    assert mine.out == tmp_path / "out" / "x" / "y.npz"
    (one,) = pieces_of(tmp_path / "mine" / "x" / "y.mov", tmp_path / "out")
    assert one.out == tmp_path / "out" / "y.npz"
    (tmp_path / "mine" / "x" / "y.mp4").touch()
    with pytest.raises(DataError, match=r"y\.mp4: found y\.mov beside it"):
        pieces_of(tmp_path / "mine", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="found no video"):
        pieces_of(tmp_path / "empty", tmp_path / "out")


def test_index_of_footage_becomes_that_of_its_keypoints(tmp_path: Path) -> None:
    """By paths with or without the ending of a video; a clip that gave no keypoints is left out."""
    mine, out = tmp_path / "mine", tmp_path / "out"
    for path in ("a.mp4", "b.mov", "more/c.1/0.jpg", "more/d.avi", "not_listed.mp4"):
        (mine / path).parent.mkdir(parents=True, exist_ok=True)
        (mine / path).touch()
    names = ("a.mp4", "b", "more/c.1", "more/d.avi")
    listed = [{"path": name, "gloss": f"sign, {name}", "signer": "ann"} for name in names]
    write_index(mine / "signs.csv", listed)
    pieces = pieces_of(mine, out)
    rows = rows_of(mine, pieces)
    for piece in pieces:
        if "d.npz" not in piece.out.name:
            piece.out.parent.mkdir(parents=True, exist_ok=True)
            piece.out.touch()
    write_index_of_keypoints(rows, out)
    found = read_index(out / "index.csv")
    assert [row["path"] for row in found] == ["a.npz", "b.npz", "more/c.1.npz"]
    assert [row["gloss"] for row in found] == [row["gloss"] for row in listed[:3]]
    write_index(mine / "signs.csv", [*listed, {"path": "e.mp4", "gloss": "x", "signer": "ann"}])
    with pytest.raises(DataError, match=r"line 6: found e\.mp4, expected the path of footage"):
        rows_of(mine, pieces)
    (mine / "signs.csv").unlink()
    write_index(mine / "others.csv", [{"file": "a.mp4"}])
    assert rows_of(mine, pieces) == [], "a table of something else"
    write_index(mine / "index.csv", [{"file": "a.mp4"}])
    with pytest.raises(DataError, match="found no column path"):
        rows_of(mine, pieces)


def test_dots_in_the_names_of_folders_are_kept(tmp_path: Path) -> None:
    for path in ("karsl/01/train/0001/a.1/0.jpg", "karsl/01/train/0001/a.2/0.jpg", "mine/a.1/0.jpg", "mine/a.2/0.jpg"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (karsl,) = pieces_of(tmp_path / "karsl", tmp_path / "out")
    assert list(karsl.clips) == ["a.1", "a.2"]
    mine = pieces_of(tmp_path / "mine", tmp_path / "out")
    assert [piece.out.name for piece in mine] == ["a.1.npz", "a.2.npz"]
    (one,) = pieces_of(tmp_path / "mine" / "a.1", tmp_path / "out")
    assert one.out.name == "a.1.npz"
    (tmp_path / "karsl/01/train/0001/a.1.mp4").touch()
    with pytest.raises(DataError, match=r"a\.1\.mp4: found a\.1 beside it, expected one clip of that name"):
        pieces_of(tmp_path / "karsl", tmp_path / "out")


def test_images_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = ["1.jpg", "2.jpg", "10.jpg", "take2_9.png", "take2_10.JPG", "take10_1.bmp"]
    for name in (*reversed(names), "10.txt"):
        (tmp_path / name).touch()
    (tmp_path / "._1.jpg").touch()  # as macOS adds to archives
    assert [file.name for file in images_in(tmp_path)] == names


def test_clips_of_any_name_are_written(tmp_path: Path) -> None:
    arrays = {name: np.full((2, 3, 4), number, np.float32) for number, name in enumerate(("file", "args", "مرحبا"))}
    with (tmp_path / "a.npz").open("wb") as file:
        command.write_arrays(file, arrays)
    found = load_arrays(tmp_path / "a.npz")
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())


def ended_from_outside(piece: Piece) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_process_that_is_killed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    monkeypatch.setattr(command, "extract", ended_from_outside)
    assert command.main([str(tmp_path), "--out", str(tmp_path / "out"), "--jobs", "1"]) == 2
    assert "error: --jobs 1: a process was ended" in capsys.readouterr().out


def without_room(piece: Piece) -> None:
    with (piece.out.parent / "tried").open("a") as file:
        file.write(f"{piece.out.name}\n")
    time.sleep(0.01)
    raise WriteError.of(piece.out, OSError(errno.ENOSPC, "No space left on device"))


def test_full_disk_ends_it_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not when all else is extracted in vain."""
    for number in range(20):
        (tmp_path / f"{number}.mp4").touch()
    monkeypatch.setattr(command, "extract", without_room)
    monkeypatch.setattr(command, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))  # to start is seconds
    assert command.main([str(tmp_path), "--out", str(tmp_path / "out"), "--jobs", "1"]) == 2
    assert "0.npz: cannot be written (No space left on device)" in capsys.readouterr().out
    assert len((tmp_path / "out" / "tried").read_text().split()) < 10


@pytest.mark.parametrize("below", ["", "new"])
@pytest.mark.parametrize("mode", [0, 0o500])
@pytest.mark.usefixtures("rights_hold")
def test_folder_that_cannot_be_written_is_told_before_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], below: str, mode: int
) -> None:
    (tmp_path / "word.mp4").touch()
    out_dir = tmp_path / "out" / below
    (tmp_path / "out").mkdir(mode)
    extracted: list[Piece] = []
    monkeypatch.setattr(command, "extract", extracted.append)
    assert command.main([str(tmp_path / "word.mp4"), "--out", str(out_dir)]) == 2
    assert f"error: {out_dir}: cannot be " in capsys.readouterr().out
    assert not extracted


def test_without_mediapipe_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "word.mp4").write_bytes(b"a video")
    finished = run([sys.executable, "launch/extract_keypoints.py", tmp_path / "word.mp4", "--out", tmp_path / "out"])
    assert finished.returncode == 2
    assert "make setup-video" in finished.stdout
    assert "Traceback" not in finished.stdout


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
    """A model that was trained in the other environment answers to a video and to a folder of images."""
    train = [sys.executable, "launch/train.py", "--deepspeed_config", "ds_configs/fp32.json", "--num_epochs", "1"]
    succeed([*train, "--runs_dir", tmp_path])
    (run_dir,) = (path for path in tmp_path.iterdir() if path.is_dir())
    images = footage / "karsl" / "02" / "train" / "0001" / "a"
    output = succeed([PYTHON, "launch/predict.py", run_dir, footage / "word.mp4", images, "--top", "3"])
    lines = output.strip().splitlines()
    assert [line.split()[0] for line in lines] == [str(footage / "word.mp4"), str(images)]
    assert all(len(line.split()) == 7 for line in lines)
