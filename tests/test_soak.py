"""The soak notices what it is there for, and its short form comes through."""

import copy
import os
import sys
from pathlib import Path

import pytest
import torch
from launching import succeed
from soak.courses import Course, Job, Lab
from soak.ends import End, differences
from soak.moments import being_written
from soak.sessions import Trouble
from soak.standing import last_step, part_of
from soak.table import Row, table

from ds_trainer.files import aside_of, write_atomically


def _end() -> End:
    state = {"engine": {"weights": {"w": torch.tensor([0.0, 1.0])}, "rates": [0.1, float("nan")]}, "run": {"done": 3}}
    return End(state, {"epoch": 2}, [{"kind": "step", "loss": 0.5}])


def test_equal_ends_have_no_differences() -> None:
    assert differences(_end(), copy.deepcopy(_end())) == []


@pytest.mark.parametrize("value", [torch.tensor([-0.0, 1.0]), torch.tensor([0.0, 1.0 + 2**-23])])
def test_one_bit_of_a_weight_is_a_difference(value: torch.Tensor) -> None:
    changed = _end()
    changed.state["engine"]["weights"]["w"] = value
    (line,) = differences(changed, _end())
    assert "state.engine.weights.w" in line


def test_missing_record_and_other_scalar_are_differences() -> None:
    changed = _end()
    changed.state["run"]["done"] = 3.0
    changed.records.clear()
    assert len(differences(changed, _end())) == 3


def test_last_step_of_a_record_that_was_cut_off(tmp_path: Path) -> None:
    assert last_step(tmp_path) == 0
    (tmp_path / "metrics.jsonl").write_text('{"kind": "step", "step": 6}\n{"kind": "step", "step": 7}\n{"kind": "st')
    assert last_step(tmp_path) == 7


STATE, MANIFEST = (Path("resume/.aside") / name for name in ("state.pt", "manifest.json"))


@pytest.mark.parametrize(
    ("paths", "part"),
    [
        ([], None),
        ([Path("resume/.aside")], "resume point empty"),
        ([Path("resume/.aside"), aside_of(STATE)], "state.pt in part"),
        ([Path("resume/.aside"), STATE, aside_of(MANIFEST)], "manifest in part"),
        ([aside_of(Path("best.pth"))], "best.pth"),
    ],
)
def test_part_that_was_being_written(paths: list[Path], part: str | None) -> None:
    assert part_of({str(path): (0, 0, 0) for path in paths}) == part


def test_file_that_is_being_written_is_where_the_soak_looks_for_it(tmp_path: Path) -> None:
    path, seen = tmp_path / "best.pth", []
    write_atomically(path, lambda file: seen.append(being_written(path, os.getpid()).exists()))
    assert seen == [True]
    assert not being_written(path, os.getpid()).exists()


def test_course_whose_moment_is_never_met_is_bad(tmp_path: Path) -> None:
    lab = Lab(tmp_path, deadline_s=0.0, seed=1)
    course = Course(lab, Row("kill", "SIGKILL"), Job("brief", 1, 5), "course")
    course.note("best.pth", was_met=False)
    with pytest.raises(Trouble, match=r"never met: best\.pth"):
        course.finish()


def test_table_is_aligned_and_says_what_is_bad() -> None:
    good = Row("kill", "SIGKILL", 3, 1, [2, 5], "equal", is_bad=False, seconds=9.6, notes=["a note"])
    lines = table([good, Row("stall", "SIGSTOP")]).splitlines()
    assert lines[2].split() == ["kill", "SIGKILL", "3", "1", "7", "5", "equal", "10"]
    assert "BAD: not run" in lines[3]
    assert lines[0].index("verdict") == lines[2].index("equal") == lines[3].index("BAD")
    assert lines[-1] == "kill: a note"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_damaged_and_stopped_run_ends_like_a_straight_one(tmp_path: Path) -> None:
    output = succeed([sys.executable, "-m", "soak", "--short", "--minutes", "4", "--work_dir", tmp_path], timeout_s=280)
    assert "equal" in output, output
