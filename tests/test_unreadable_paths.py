"""Paths that may not be looked at, or that cannot be any: told in one line, whichever command is given them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ds_trainer.errors import UserError
from ds_trainer.report.runs import find_runs
from ds_trainer.run.resume import run_to_continue
from ds_trainer.run.resume_points import newest_resume_point
from ds_trainer.source import load_source
from ds_trainer.tasks.sign.unlabelled import clips_in


def told_of_clips(path: Path) -> None:
    [(_, error)] = clips_in(path)
    assert isinstance(error, UserError)
    raise error


LOOK: dict[str, Callable[[Path], Any]] = {
    "predict.py RUN PATH": told_of_clips,
    "predict.py, evaluate.py, export.py, --pretrained": load_source,
    "compare.py": lambda path: find_runs([path]),
    "--resume PATH": lambda path: run_to_continue(str(path), Path("runs"), lambda ranks: {}),
    "--runs_dir PATH --resume auto": lambda path: run_to_continue("auto", path, lambda ranks: {}),
}


@pytest.mark.parametrize("look", LOOK.values(), ids=LOOK.keys())
@pytest.mark.usefixtures("rights_hold")
def test_path_that_cannot_be_looked_at(tmp_path: Path, look: Callable[[Path], Any]) -> None:
    private = tmp_path / "private"
    (private / "run").mkdir(parents=True)
    private.chmod(0)
    for path, reason in ((private / "run", "Permission denied"), (tmp_path / ("x" * 300), "File name too long")):
        with pytest.raises(UserError) as caught:
            look(path)
        [problem] = caught.value.problems
        assert str(path) in problem
        assert reason in problem


BELOW: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "compare.py FOLDER": ("seed_0", lambda folder: find_runs([folder])),
    "--resume RUN": ("resume", lambda run_dir: newest_resume_point(run_dir / "resume")),
}


@pytest.mark.parametrize(("name", "look"), BELOW.values(), ids=BELOW.keys())
@pytest.mark.usefixtures("rights_hold")
def test_folder_in_it_that_cannot_be_looked_into_is_told_and_not_taken_for_empty(
    tmp_path: Path, name: str, look: Callable[[Path], Any]
) -> None:
    (tmp_path / name).mkdir(mode=0)
    with pytest.raises(UserError, match=f"{name}: cannot be looked at .Permission denied"):
        look(tmp_path)
