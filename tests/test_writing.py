"""Files that are written beside training: in order, and again when the disk could not take them."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ds_trainer.files import write_atomically
from ds_trainer.progress import log
from ds_trainer.run.writing import Writer


@pytest.fixture
def writer() -> Iterator[Writer]:
    writer = Writer()
    yield writer
    writer.close()


def saying(path: Path, text: str) -> Callable[[], None]:
    return lambda: write_atomically(path, lambda file: file.write(text.encode()))


def test_training_does_not_wait_for_the_disk(writer: Writer, tmp_path: Path) -> None:
    disk_is_ready = threading.Event()
    written: list[str] = []

    def slowly() -> None:
        assert disk_is_ready.wait(10)
        written.append("best.pth")

    writer.write("best.pth", slowly)
    writer.write("resume point", lambda: written.append("resume point"))
    assert written == [], "both calls came back while the disk was busy"
    disk_is_ready.set()
    assert writer.finish() == []
    assert written == ["best.pth", "resume point"]


def test_failed_write_is_told_once_kept_and_written_before_what_counts_on_it(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(log, "warning", told.append)
    run_dir = tmp_path / "run"
    for epoch in range(3):
        writer.write("best.pth", saying(run_dir / "best.pth", f"best {epoch}"))
        writer.write("resume point", saying(tmp_path / "point", f"point {epoch}"))
    problems = writer.finish()
    assert [str(run_dir / "best.pth") in problem for problem in problems] == [True]
    assert not (tmp_path / "point").exists(), "it would count on a best checkpoint that is not there"
    assert len(told) == 1
    assert "best.pth not written" in told[0]
    assert "training goes on" in told[0]
    run_dir.mkdir()
    assert writer.finish() == []
    assert (run_dir / "best.pth").read_text() == "best 2"
    assert (tmp_path / "point").read_text() == "point 2"
    assert "written again" in told[1]


def test_best_checkpoint_after_a_failed_resume_point_is_written_before_the_next_one(
    writer: Writer, tmp_path: Path
) -> None:
    point = tmp_path / "resume" / "point"
    writer.write("resume point", saying(point, "point 2"))
    assert len(writer.finish()) == 1
    writer.write("best.pth", saying(tmp_path / "best.pth", "best 3"))
    writer.write("resume point", saying(point, "point 3"))
    (problem,) = writer.finish()
    assert str(point) in problem
    assert (tmp_path / "best.pth").read_text() == "best 3", "point 3 will count on it"
    point.parent.mkdir()
    assert writer.finish() == []
    assert point.read_text() == "point 3"


def test_mistake_of_the_program_is_not_taken_for_a_fault_of_the_disk(writer: Writer) -> None:
    writer.write("best.pth", lambda: [][0])
    with pytest.raises(IndexError):
        writer.finish()
