"""From footage to keypoints: which files become which, and what goes wrong on the way."""

import errno
import os
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from launching import clean_environment, run

from ds_trainer.errors import DataError, WriteError
from ds_trainer.tasks.sign.extraction import command
from ds_trainer.tasks.sign.extraction.footage import images_in
from ds_trainer.tasks.sign.extraction.index import rows_of
from ds_trainer.tasks.sign.extraction.index import write_index as write_index_of_keypoints
from ds_trainer.tasks.sign.extraction.work import Piece, pieces_of
from ds_trainer.tasks.sign.readers.clip_table import read_index
from ds_trainer.tasks.sign.readers.npz_file import load_arrays

from .writers import write_index


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


def test_set_up_for_footage_refuses_a_python_for_which_there_is_no_mediapipe(tmp_path: Path) -> None:
    newer = "import sys; sys.version_info = (3, 14, 0); exec(sys.argv[2])"
    python = f"{shlex.quote(sys.executable)} -c '{newer}'"
    output = run(["make", "setup-video", f"PYTHON={python}", f"VIDEO={tmp_path / 'video'}"]).stdout
    assert "MediaPipe 0.10.21 needs Python 3.11 or 3.12: make setup-video PYTHON=python3.12" in output


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


WAITING = """
import sys
import time
from ds_trainer.tasks.sign.extraction import command

def wait(piece):
    (piece.out.parent / "begun").touch()
    time.sleep(100)

if __name__ == "__main__":
    command.extract = wait
    command.main(sys.argv[1:])
"""


def test_no_process_is_left_of_a_command_that_was_killed(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "waiting.py").write_text(WAITING)
    flags = [tmp_path, "--out", tmp_path / "out", "--jobs", "2"]
    with subprocess.Popen([sys.executable, tmp_path / "waiting.py", *flags], env=clean_environment()) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "out" / "begun").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        started = psutil.Process(process.pid).children()
        process.kill()
    assert len(started) >= 2
    assert not psutil.wait_procs(started, timeout=100)[1]  # one may still import


def tried(piece: Piece) -> tuple[list[str], list[str]]:
    with (piece.out.parent / "tried").open("a") as file:
        file.write(f"{piece.out.name}\n")
    time.sleep(0.01)
    return [], []


def without_room(piece: Piece) -> None:
    tried(piece)
    raise WriteError.of(piece.out, OSError(errno.ENOSPC, "No space left on device"))


def mistaken(piece: Piece) -> None:
    tried(piece)
    raise ZeroDivisionError("a mistake")


@pytest.fixture
def of_twenty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments by which twenty files are extracted, one after the other, in a thread: processes start in seconds."""
    for number in range(20):
        (tmp_path / f"{number}.mp4").touch()
    monkeypatch.setattr(command, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    return [str(tmp_path), "--out", str(tmp_path / "out"), "--jobs", "1"]


def num_tried(of_twenty: list[str]) -> int:
    return len((Path(of_twenty[2]) / "tried").read_text().split())


def test_full_disk_ends_it_soon(
    of_twenty: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not when all else is extracted in vain."""
    monkeypatch.setattr(command, "extract", without_room)
    assert command.main(of_twenty) == 2
    assert "0.npz: cannot be written (No space left on device)" in capsys.readouterr().out
    assert num_tried(of_twenty) < 10


def test_mistake_in_the_program_ends_it_soon(of_twenty: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "extract", mistaken)
    with pytest.raises(ZeroDivisionError):
        command.main(of_twenty)
    assert num_tried(of_twenty) < 10


def test_ctrl_c_while_it_starts_ends_it_soon(of_twenty: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(ThreadPoolExecutor):
        def submit(self, *work: Any) -> Any:  # type: ignore[override]
            submitted = super().submit(*work)
            if self._work_queue.qsize() > 15:
                raise KeyboardInterrupt
            return submitted

    monkeypatch.setattr(command, "extract", tried)
    monkeypatch.setattr(command, "ProcessPoolExecutor", lambda *_: Interrupted(1))
    assert command.main(of_twenty) == 130
    assert num_tried(of_twenty) < 10


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
