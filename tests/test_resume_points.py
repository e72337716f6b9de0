"""Which resume point a job continues from: the newest that is whole, never a damaged one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ds_trainer.errors import CheckpointError
from ds_trainer.files import sha256, write_json
from ds_trainer.progress import log
from ds_trainer.saving import newest_resume_point, verify_resume_point

NEWER, OLDER = "epoch_0002-step_00000020", "epoch_0001-step_00000010"


def write_point(resume_dir: Path, name: str, world_size: int = 1) -> Path:
    point = resume_dir / name
    point.mkdir(parents=True)
    (point / "weights.pt").write_bytes(name.encode() * 100)
    (point / "optimizer.pt").write_bytes(name.encode() * 200)
    files = {file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in point.iterdir()}
    write_json(point / "manifest.json", {"step": 1, "world_size": world_size, "files": files})
    return point


@pytest.fixture
def resume_dir(tmp_path: Path) -> Path:
    write_point(tmp_path, OLDER)
    write_point(tmp_path, NEWER)
    return tmp_path


def flip_a_bit(point: Path) -> None:
    content = bytearray((point / "optimizer.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (point / "optimizer.pt").write_bytes(content)


def cut(point: Path) -> None:
    path = point / "weights.pt"
    path.write_bytes(path.read_bytes()[:-1])


def lose_a_file(point: Path) -> None:
    (point / "weights.pt").unlink()


def lose_the_manifest(point: Path) -> None:
    (point / "manifest.json").unlink()


def cut_the_manifest(point: Path) -> None:
    path = point / "manifest.json"
    path.write_text(path.read_text()[:40])


def test_newest_is_taken(resume_dir: Path) -> None:
    assert newest_resume_point(resume_dir).name == NEWER


@pytest.mark.parametrize("damage", [flip_a_bit, cut, lose_a_file, lose_the_manifest, cut_the_manifest])
def test_damaged_point_is_refused_for_the_one_before(
    resume_dir: Path, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(log, "warning", told.append)
    damage(resume_dir / NEWER)
    assert verify_resume_point(resume_dir / NEWER) is not None
    assert newest_resume_point(resume_dir).name == OLDER
    assert len(told) == 1
    assert NEWER in told[0]
    assert OLDER in told[0]


def test_every_refusal_is_told_when_nothing_is_left(resume_dir: Path) -> None:
    flip_a_bit(resume_dir / NEWER)
    lose_a_file(resume_dir / OLDER)
    with pytest.raises(CheckpointError) as caught:
        newest_resume_point(resume_dir)
    assert len(caught.value.problems) == 2


def test_nothing_to_continue(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="--resume never"):
        newest_resume_point(tmp_path)


def test_point_of_another_world_size_is_refused(tmp_path: Path) -> None:
    write_point(tmp_path, NEWER, world_size=3)
    with pytest.raises(CheckpointError, match="saved by 3 ranks, this job has 1"):
        newest_resume_point(tmp_path)
