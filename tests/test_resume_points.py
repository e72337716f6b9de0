"""Which resume point a job continues from: the newest that is whole, never a damaged one."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ds_trainer.errors import CheckpointError, WriteError
from ds_trainer.files import sha256, write_json
from ds_trainer.progress import log
from ds_trainer.run import resume_points as resume_points_module
from ds_trainer.run.resume_points import newest_resume_point, read_resume_point, resume_points, write_resume_point

NEWER, OLDER = "epoch_0002-step_00000020", "epoch_0001-step_00000010"


@pytest.fixture
def resume_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "resume"
    for name in (OLDER, NEWER):
        write_resume_point(folder, name, {"weights": torch.arange(100.0), "name": name}, num_kept=2)
    return folder


def flip_a_bit(point: Path) -> None:
    content = bytearray((point / "state.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (point / "state.pt").write_bytes(content)


def cut(point: Path) -> None:
    path = point / "state.pt"
    path.write_bytes(path.read_bytes()[:-1])


def lose_a_file(point: Path) -> None:
    (point / "state.pt").unlink()


def lose_the_manifest(point: Path) -> None:
    (point / "manifest.json").unlink()


def cut_the_manifest(point: Path) -> None:
    path = point / "manifest.json"
    path.write_text(path.read_text()[:40])


def empty_the_manifest(point: Path) -> None:
    (point / "manifest.json").write_text("[]")


def test_what_a_user_lays_beside_is_no_point_and_stays(resume_dir: Path) -> None:
    """A copy of a point, kept under another name, counts as none: it is neither continued from nor deleted."""
    kept = [resume_dir / f"{OLDER}.mine", resume_dir / "epoch_of_the_paper"]
    for folder in kept:
        shutil.copytree(resume_dir / OLDER, folder)
    write_resume_point(resume_dir, "epoch_0003-step_00000030", {"weights": torch.zeros(1)}, num_kept=1)
    assert [point.name for point in resume_points(resume_dir)] == ["epoch_0003-step_00000030"]
    assert all((folder / "state.pt").exists() for folder in kept)


def test_newest_is_taken_whole(resume_dir: Path) -> None:
    point, state = newest_resume_point(resume_dir)
    assert point.name == NEWER == state["name"]
    assert torch.equal(state["weights"], torch.arange(100.0))
    assert sorted(path.name for path in resume_dir.iterdir()) == [OLDER, NEWER]


@pytest.mark.parametrize(
    "damage", [flip_a_bit, cut, lose_a_file, lose_the_manifest, cut_the_manifest, empty_the_manifest]
)
def test_damaged_point_is_refused_for_the_one_before(
    resume_dir: Path, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(log, "warning", told.append)
    damage(resume_dir / NEWER)
    point, state = newest_resume_point(resume_dir)
    assert point.name == OLDER == state["name"]
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


def test_only_the_newest_are_kept(resume_dir: Path) -> None:
    write_resume_point(resume_dir, "epoch_0003-step_00000030", {}, num_kept=1)
    assert [point.name for point in resume_points(resume_dir)] == ["epoch_0003-step_00000030"]


def test_later_points_which_were_refused_take_no_place_of_good_ones(resume_dir: Path) -> None:
    """A run that went back to the point before writes the next ones between both."""
    between = "epoch_0001-step_00000015"
    write_resume_point(resume_dir, between, {"name": between}, num_kept=1)
    assert [point.name for point in resume_points(resume_dir)] == [between, NEWER]


def test_point_of_the_same_step_takes_the_place_of_the_former(resume_dir: Path) -> None:
    write_resume_point(resume_dir, NEWER, {"name": "again"}, num_kept=2)
    assert newest_resume_point(resume_dir)[1]["name"] == "again"


def test_what_a_killed_process_left_aside_does_not_stand_in_the_way(resume_dir: Path) -> None:
    (resume_dir / ".aside").mkdir()
    (resume_dir / ".aside" / "state.pt").write_bytes(b"half")
    (resume_dir / "my own copies").mkdir()
    write_resume_point(resume_dir, "epoch_0003-step_00000030", {}, num_kept=1)
    assert [point.name for point in resume_points(resume_dir)] == ["epoch_0003-step_00000030"]
    assert sorted(path.name for path in resume_dir.iterdir()) == ["epoch_0003-step_00000030", "my own copies"]


def test_name_of_a_point_is_on_disk_when_it_is_written(resume_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "epoch_0003-step_00000030"
    synced: list[tuple[Path, bool]] = []
    monkeypatch.setattr(resume_points_module, "sync", lambda path: synced.append((path, (path / name).is_dir())))
    write_resume_point(resume_dir, name, {}, num_kept=1)
    assert synced == [(resume_dir, True)]


def test_points_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = ["epoch_9999-step_99999999", "epoch_9999-step_100000000", "epoch_10000-step_100000001"]
    for name in names:
        write_resume_point(tmp_path, name, {"name": name}, num_kept=2)
        assert newest_resume_point(tmp_path)[1]["name"] == name
    assert [point.name for point in resume_points(tmp_path)] == names[1:]


def test_point_that_cannot_be_written_leaves_the_others_and_no_rest(
    resume_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (resume_dir / "epoch_0003-step_00000030").write_text("a file where the folder should come")
    with pytest.raises(WriteError, match="epoch_0003"):
        write_resume_point(resume_dir, "epoch_0003-step_00000030", {}, num_kept=1)
    (resume_dir / "epoch_0003-step_00000030").unlink()
    assert newest_resume_point(resume_dir)[0].name == NEWER
    assert not (resume_dir / ".aside").exists()


class Bomb:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str, int], object], tuple[str, int]]:
        return os.open, (str(self.path), os.O_CREAT)


def test_pickle_in_a_point_is_not_executed(resume_dir: Path, tmp_path: Path) -> None:
    point, trace = resume_dir / NEWER, tmp_path / "executed"
    for content in (pickle.dumps(Bomb(trace)), None):
        if content is None:
            torch.save({"format": "ds_trainer resume point 1", "run": Bomb(trace)}, point / "state.pt")
        else:
            (point / "state.pt").write_bytes(content)
        listed = {"bytes": (point / "state.pt").stat().st_size, "sha256": sha256(point / "state.pt")}
        write_json(point / "manifest.json", {"files": {"state.pt": listed}})
        with pytest.raises(CheckpointError, match="damaged"):
            read_resume_point(point)
        assert not trace.exists()


def test_other_format_is_refused(resume_dir: Path) -> None:
    point = resume_dir / NEWER
    torch.save({"format": "ds_trainer resume point 9"}, point / "state.pt")
    listed = {"bytes": (point / "state.pt").stat().st_size, "sha256": sha256(point / "state.pt")}
    (point / "manifest.json").write_text(json.dumps({"files": {"state.pt": listed}}))
    with pytest.raises(CheckpointError, match="expected 'ds_trainer resume point 1'"):
        read_resume_point(point)
