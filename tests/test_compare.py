"""Runs side by side: of real runs, and what cannot be compared."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from launching import succeed

from ds_trainer.errors import DataError
from ds_trainer.report.compare import letters_of, told
from ds_trainer.report.runs import differing, find_runs, summaries

TRAIN = [sys.executable, "launch/train.py", "--task", "toy", "--num_points", "300", "--num_epochs", "2"]


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, of other seeds and precision."""
    path = tmp_path_factory.mktemp("compared") / "runs"
    for seed, config in ((1, "bf16"), (2, "fp32")):
        engine = ["--deepspeed_config", f"ds_configs/{config}.json"]
        succeed([*TRAIN, *engine, "--seed", str(seed), "--runs_dir", path])
    return path


@pytest.mark.slow
def test_what_differs_and_what_was_reached(runs_dir: Path, tmp_path: Path) -> None:
    page = tmp_path / "compare.html"
    output = succeed([sys.executable, "launch/compare.py", runs_dir, "--page", page])
    rows = {line.split("  ")[0]: line.split() for line in output.splitlines()}
    assert rows["seed"] == ["seed", "1", "2"]
    assert rows["engine.bf16.enabled"][1:] == ["True", "-"]
    first, second = sorted(runs_dir.iterdir())
    for name, value in json.loads((second / "status.json").read_text())["results"].items():
        assert rows[f"test {name}"][-1] == f"{value:.4g}"
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 5
    assert first.name in text
    assert second.name in text


@pytest.mark.slow
def test_runs_are_found_once_and_one_that_goes_on_too(runs_dir: Path) -> None:
    first, second = sorted(runs_dir.iterdir())
    assert [run.path for run in find_runs([second, runs_dir])] == [second, first]
    same = find_runs([first])
    assert differing(same) == {}
    assert "settings that differ: none" in list(told(same))
    (first / "status.json").write_text(json.dumps({"status": "running", "epochs_done": 1}))
    lines = (first / "metrics.jsonl").read_text().splitlines(keepends=True)
    (first / "metrics.jsonl").write_text("".join(line for line in lines if '"test"' not in line))
    table = summaries(find_runs([runs_dir]))
    assert table["status"] == ["running", "finished"]
    assert table["test top1"][0] is None


@pytest.mark.slow
def test_what_is_no_run_is_named(runs_dir: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "run.yaml").write_text("seed: [")
    with pytest.raises(DataError) as caught:
        find_runs([broken, runs_dir, tmp_path / "nowhere"])
    assert [problem.split(":")[0] for problem in caught.value.problems] == [str(broken), str(tmp_path / "nowhere")]


@pytest.mark.slow
def test_runs_of_a_sweep_are_found(runs_dir: Path, tmp_path: Path) -> None:
    for seed, run in enumerate(sorted(runs_dir.iterdir())):
        shutil.copytree(run, tmp_path / "sweep" / f"seed_{seed}" / "s01" / run.name)
    assert len(find_runs([tmp_path / "sweep"])) == 2
    assert len(find_runs([tmp_path / "sweep" / "seed_0"])) == 1


def test_paths_without_a_run_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        find_runs([tmp_path, tmp_path / "nowhere"])
    expected = "expected a run, a folder of runs or a sweep; check the path"
    assert caught.value.problems == [
        f"{tmp_path}: found no run.yaml, {expected}",
        f"{tmp_path / 'nowhere'}: missing, {expected}",
    ]


def test_letters_go_on_behind_z() -> None:
    letters = letters_of(60)
    assert letters[:3] == ["A", "B", "C"]
    assert letters[25:28] == ["Z", "AA", "AB"]
    assert len(set(letters)) == 60
    assert letters_of(26 + 26**2 + 1)[-2:] == ["ZZ", "AAA"]
