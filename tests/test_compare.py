"""Runs side by side: of real runs, and what cannot be compared."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from browsing import SCREENS
from drawn import overlapping, records_of
from launching import succeed, train_here
from test_report import make_run_dir

from ds_trainer.errors import DataError
from ds_trainer.report.compare import comparison_figures, letters_of, main, told, write_comparison
from ds_trainer.report.runs import differing, find_runs, summaries

TRAIN = ["--task", "toy", "--num_points", "300", "--num_epochs", "2"]


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, of other seeds and precision."""
    path = tmp_path_factory.mktemp("compared") / "runs"
    for seed, config in ((1, "bf16"), (2, "fp32")):
        engine = ["--deepspeed_config", f"ds_configs/{config}.json"]
        train_here(*TRAIN, *engine, "--seed", str(seed), "--runs_dir", path)
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
    runs, problems = find_runs([second, runs_dir])
    assert ([run.path for run in runs], problems) == ([second, first], [])
    same, _ = find_runs([first])
    assert differing(same) == {}
    assert "settings that differ: none" in list(told(same))
    (first / "status.json").write_text(json.dumps({"status": "running", "epochs_done": 1}))
    lines = (first / "metrics.jsonl").read_text().splitlines(keepends=True)
    (first / "metrics.jsonl").write_text("".join(line for line in lines if '"test"' not in line))
    table = summaries(find_runs([runs_dir])[0])
    assert table["status"] == ["running", "finished"]
    assert table["test top1"][0] is None


@pytest.mark.slow
def test_what_is_no_run_is_named(runs_dir: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "run.yaml").write_text("seed: [")
    runs, problems = find_runs([broken, runs_dir, tmp_path / "nowhere"])
    assert len(runs) == 2
    assert [problem.split(":")[0] for problem in problems] == [str(broken), str(tmp_path / "nowhere")]


@pytest.mark.slow
def test_runs_of_a_sweep_are_found(runs_dir: Path, tmp_path: Path) -> None:
    for seed, run in enumerate(sorted(runs_dir.iterdir())):
        shutil.copytree(run, tmp_path / "sweep" / f"seed_{seed}" / "s01" / run.name)
    assert len(find_runs([tmp_path / "sweep"])[0]) == 2
    assert len(find_runs([tmp_path / "sweep" / "seed_0"])[0]) == 1


def test_paths_without_a_run_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        find_runs([tmp_path, tmp_path / "nowhere"])
    expected = "expected a run, a folder of runs or a sweep; check the path"
    assert caught.value.problems == [
        f"{tmp_path}: found no run.yaml, {expected}",
        f"{tmp_path / 'nowhere'}: missing, {expected}",
    ]


def make_runs(folder: Path, number: int) -> list[Path]:
    """Runs of one epoch and of two by turns; each has a lower validation loss than those before it."""
    folder.mkdir()
    runs = []
    for seed in range(number):
        path = make_run_dir(folder / f"run_{seed:02}")
        (path / "run.yaml").write_text(f"seed: {seed}\n")
        (path / "status.json").write_text(json.dumps({"status": "finished", "results": {"top1": 0.25}}))
        records = [{**record, "seconds": 1.5} for record in records_of(1 + seed % 2, val_loss=2 - seed / 100)]
        (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        runs.append(path)
    return runs


DAMAGES: dict[str, tuple[str, str | None]] = {
    "status.json: No such file or directory": ("status.json", None),
    "engine.json: No such file or directory": ("engine.json", None),
    "status.json: Expecting value": ("status.json", ""),
    "status.json: found .., expected names": ("status.json", "[]"),
    "no 'status'": ("status.json", "{}"),
    "has no attribute 'items'": ("status.json", '{"status": "finished", "results": []}'),
    "run.yaml: found None, expected names": ("run.yaml", ""),
    "run.yaml: while parsing": ("run.yaml", "seed: ["),
    "no 'seconds'": ("metrics.jsonl", '{"kind": "epoch", "epoch": 0}\n'),
    "found an epoch that is none": ("metrics.jsonl", '{"kind": "epoch", "epoch": null}\n'),
    "could not convert": ("metrics.jsonl", '{"kind": "epoch", "epoch": 0, "seconds": 1, "top1": "high"}\n'),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_runs_beside_a_damaged_one_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], reason: str) -> None:
    damaged, whole = make_runs(tmp_path / "runs", 2)
    name, content = DAMAGES[reason]
    (damaged / name).unlink()
    if content is not None:
        (damaged / name).write_text(content)
    page = tmp_path / "page.html"
    assert main([str(tmp_path / "runs"), "--page", str(page)]) == 2
    shown = capsys.readouterr()
    assert f"A  {whole}\n" in shown.out
    assert whole.name in page.read_text(encoding="utf-8")
    assert re.fullmatch(f"error: {damaged}: cannot be read as a run .*{reason}.*, expected the files .*\n", shown.err)
    with pytest.raises(DataError, match=reason):
        find_runs([damaged])


@pytest.mark.usefixtures("rights_hold")
def test_runs_beside_a_folder_that_cannot_be_looked_into_are_shown(tmp_path: Path) -> None:
    [whole] = make_runs(tmp_path / "runs", 1)
    (tmp_path / "runs" / "private").mkdir(mode=0)
    runs, [problem] = find_runs([tmp_path / "runs"])
    assert [run.path for run in runs] == [whole]
    assert "private: cannot be looked at (Permission denied)" in problem


def test_many_runs_are_rows_of_a_narrow_table_the_best_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_runs(tmp_path / "runs", 40)
    assert main([str(tmp_path / "runs")]) == 0
    paths, settings, reached, best = capsys.readouterr().out.split("\n\n")
    assert [line.split() for line in paths.splitlines()[::39]] == [["A", str(made[-1])], ["AN", str(made[0])]]
    assert settings.splitlines()[:3] == ["settings that differ", "    seed", "A     39"]
    rows = [line.split() for line in reached.splitlines()[-40:]]
    assert [row[0] for row in rows] == letters_of(40)
    assert rows[0][:7] == ["A", "finished", "2", "2", "1", "1.61", "0.11"]
    assert max(map(len, reached.splitlines())) <= 100
    assert best == "lowest validation loss first: A, 1.61\n"


def test_few_runs_are_columns_in_the_order_that_was_asked_for(tmp_path: Path) -> None:
    first, second = make_runs(tmp_path / "runs", 2)
    lines = list(told(find_runs([second, first])[0]))
    assert lines[:2] == [f"A  {second}", f"B  {first}"]
    assert "seed  1  0" in lines
    assert lines[-1] == "lowest validation loss: A, 1.99"
    (first / "metrics.jsonl").write_text("")
    assert list(told(find_runs([first, second])[0]))[-1] == "lowest validation loss: B, 1.99"
    assert list(told(find_runs([first])[0]))[-1] == "no run has a best checkpoint yet"


def test_losses_and_scores_of_another_kind_are_called_so(tmp_path: Path) -> None:
    paths = make_runs(tmp_path / "runs", 2)
    for run_dir, label_smoothing, split in zip(paths, (0.1, 0.0), ("test", "validation"), strict=True):
        (run_dir / "run.yaml").write_text(f"label_smoothing: {label_smoothing}\n")
        records = (run_dir / "metrics.jsonl").read_text() + json.dumps({"kind": "test", "split": split}) + "\n"
        (run_dir / "metrics.jsonl").write_text(records)
    runs = find_runs(paths)[0]
    assert list(told(runs))[-1].endswith(": B, 1.99 (not comparable: label_smoothing, a part of the loss, differs)")
    assert [summaries(runs)[f"{split} top1"] for split in ("test", "validation")] == [[0.25, None], [None, 0.25]]


def test_what_runs_were_of_and_what_they_have_reached(tmp_path: Path) -> None:
    first, second = (make_run_dir(tmp_path / name) for name in ("first", "second"))
    for run_dir in (first, second):
        (run_dir / "status.json").write_text('{"status": "finished"}')
        records = [{**record, "seconds": [9, 1, 2, 30][record["epoch"]]} for record in records_of(4)]
        (run_dir / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    environment = json.loads((second / "environment.json").read_text())
    environment |= {"data_fingerprint": "4567", "devices": {"type": "cuda", "name": "H200"}, "versions": {"torch": "3"}}
    (second / "environment.json").write_text(json.dumps(environment))
    (second / "run.yaml").write_text("seed: 7\nruns_dir: others\n")
    zero = {"stage": 1, "offload_optimizer": {}}
    (second / "engine.json").write_text(json.dumps({"gradient_clipping": 1.0, "zero_optimization": zero}))
    runs, _ = find_runs([first, second])
    assert differing(runs) == {
        "data_fingerprint": ["0123", "4567"],
        "device": [None, "H200"],
        "torch": ["2.13", "3"],
        "engine.zero_optimization.stage": [None, 1],
        "engine.zero_optimization.offload_optimizer": [None, {}],
    }
    reached = {name: value for name, (value, _) in summaries(runs).items()}
    assert (reached["epochs"], reached["best epoch"], reached["seconds an epoch"]) == (4, 3, 5.5)
    assert (reached["train loss"], reached["val loss"]) == (pytest.approx(2 / 3), 1.0)


@pytest.mark.parametrize("number", [3, 12, 40])
def test_each_curve_can_be_told_from_all_others(tmp_path: Path, number: int) -> None:
    """Those of a single epoch, too, of which nothing but a marker can be seen."""
    make_runs(tmp_path / "runs", number)
    runs, _ = find_runs([tmp_path / "runs"])
    for _, figure in comparison_figures(letters_of(number), runs):
        [axes] = figure.axes
        handles, labels = axes.get_legend_handles_labels()
        assert labels == letters_of(number)
        assert len(axes.get_legend().get_texts()) == number
        for looks in ("color", "linestyle"), ("color", "marker"):
            assert len({tuple(getattr(line, f"get_{look}")() for look in looks) for line in handles}) == number
        assert overlapping(figure) == []
        assert all(float(text.get_text()).is_integer() for text in axes.get_xticklabels())


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("screen", SCREENS)
def test_page_of_many_runs_in_a_browser(tmp_path: Path, browser: Any, screen: str) -> None:
    """Nothing but tables reaches beyond the screen, and their rows keep the letter of their run in sight."""
    make_runs(tmp_path / "runs", 40)
    page_path = tmp_path / "page.html"
    write_comparison(page_path, find_runs([tmp_path / "runs"])[0])
    page = browser.new_page(offline=True, **SCREENS[screen])
    page.goto(page_path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    table = page.locator(".scroll").last
    table.evaluate("table => table.scrollLeft = 10000")
    letter = table.locator("tbody td").first
    assert letter.inner_text() == "A"
    assert letter.bounding_box()["x"] >= 0
    page.close()


def test_letters_go_on_behind_z() -> None:
    letters = letters_of(60)
    assert letters[:3] == ["A", "B", "C"]
    assert letters[25:28] == ["Z", "AA", "AB"]
    assert len(set(letters)) == 60
    assert letters_of(26 + 26**2 + 1)[-2:] == ["ZZ", "AAA"]
