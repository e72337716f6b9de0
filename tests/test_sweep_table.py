"""What a sweep scores and refuses before it trains, and tables that add up."""

import json
import logging
import math
from dataclasses import replace
from pathlib import Path

import pytest
from launching import ROOT
from matplotlib.figure import Figure
from sign_data.writers import grid, source

from ds_trainer.checkpoint import write_checkpoint
from ds_trainer.cross_validation.command import main
from ds_trainer.cross_validation.folds import Fold, folds_of
from ds_trainer.cross_validation.scored import Scored, scored_by
from ds_trainer.cross_validation.sweep import scores_in
from ds_trainer.cross_validation.table import Results, draw_table, summarise, table_lines, write_table
from ds_trainer.plots.style import shown_name
from ds_trainer.settings import combined_settings
from ds_trainer.tasks.sign.settings import SignSettings
from ds_trainer.tasks.sign.store_writer import write_store

SCORES = {0: {"ann": 0.9, "bob": 0.5}, 1: {"ann": 1.0, "bob": 0.6}}
SCORED = Scored(num_clips={"ann": 10, "bob": 64}, num_untrained={"ann": 0, "bob": 8})


def data_with_copies(folder: Path, *copies: tuple[int, int]) -> Path:
    """A store of two signs by three signers, four clips each; of each pair the second is a copy of the first."""
    clips = grid(signs=2, signers=3, repetitions=4)
    for one, other in copies:
        clips[other] = replace(clips[other], frames=clips[one].frames)
    write_store(folder, source(clips, num_signs=2))
    return folder


def refusal_of(capsys: pytest.CaptureFixture[str], data: Path, *flags: str) -> list[str]:
    """What a sweep says that is refused before its folder is there."""
    shared = ["--deepspeed_config", str(ROOT / "ds_configs/fp32.json"), "--sweep_dir", str(data.parent / "sweep")]
    assert main([*shared, "--data", str(data), *flags]) == 2
    assert not (data.parent / "sweep").exists()
    return capsys.readouterr().out.splitlines()


def test_score_that_a_run_could_not_tell_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"by_group": {"ann": {"top1": null}, "bob": {"top1": 0.5}}}')
    scores = scores_in(tmp_path / "status.json", Fold(("ann", "bob"), 0), "top1")
    assert math.isnan(scores["ann"])
    assert scores["bob"] == 0.5


def test_what_any_fold_refuses_is_told_before_the_first_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Clips 0 to 3 are of s01, 8 to 11 of s03; the fold of s02 could train."""
    data = data_with_copies(tmp_path / "store", (0, 8), (0, 1), (2, 3))
    assert [line.partition(": found the same")[0] for line in refusal_of(capsys, data, "--seeds", "3")] == [
        "error: s01 held out, seed 0: --split signer:s01", "error: s03 held out, seed 0: --split signer:s03"
    ]  # fmt: skip
    assert refusal_of(capsys, data)[0].endswith("remove the copies from the data, which has 3 in all")
    write_checkpoint(
        tmp_path / "a.pth",
        {
            "task": "sign", "description": {}, "engine_config": {}, "epoch": 0, "state_dict": {},
            "settings": {"data": str(data), "signers": ["s02", "s03"], "deepspeed_config": "unused"},
        },
    )  # fmt: skip
    write_checkpoint(
        tmp_path / "b.pth",
        {"task": "toy", "description": {}, "engine_config": {}, "epoch": 0, "state_dict": {}, "adapted_to": 5}
        | {"settings": {"pretrained": str(tmp_path / "a.pth")}},
    )
    for pretrained in ("a.pth", "b.pth"):  # whose weights began with a.pth
        (line,) = refusal_of(capsys, data, "--signers", "s02,s01", "--pretrained", str(tmp_path / pretrained))
        assert line.startswith("error: s02 held out, seed 0: --pretrained: found ")


def test_what_is_not_known_of_the_weights_that_folds_begin_with_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the log of the sweep, not in those of its folds alone: a table says that nobody has taken part."""
    monkeypatch.setattr(logging.getLogger("ds_trainer"), "propagate", True)
    caplog.set_level("INFO", logger="ds_trainer")
    of_others = {"data": str(tmp_path / "gone"), "deepspeed_config": "unused"}
    known = {"task": "sign", "description": {}, "engine_config": {}, "epoch": 0, "state_dict": {}}
    write_checkpoint(tmp_path / "a.pth", {**known, "settings": of_others, "adapted_to": 5})
    data = data_with_copies(tmp_path / "store")
    settings = combined_settings(SignSettings)(
        deepspeed_config=Path("unused"), data=str(data), pretrained=tmp_path / "a.pth"
    )
    scored_by(folds_of(["s01", "s02", "s03"], None, 2, 0), settings)
    not_here, adapted = caplog.messages
    assert not_here.startswith("note: the clips of --pretrained are not here")
    assert adapted.startswith("note: --pretrained was adapted to 5 examples, of whom is not known")


def test_clips_that_are_scored_are_counted_and_those_that_cannot_be_recognised(tmp_path: Path) -> None:
    clips = [clip for clip in grid(signs=2, signers=3, repetitions=4) if clip.sign == 1 or clip.signer == "s02"]
    write_store(tmp_path / "store", source(clips, num_signs=2))
    settings = combined_settings(SignSettings)(deepspeed_config=Path("unused"), data=str(tmp_path / "store"))
    assert scored_by(folds_of(["s01", "s02", "s03"], None, 2, 0), settings) == Scored(
        {"s01": 4, "s02": 8, "s03": 4}, {"s01": 0, "s02": 4, "s03": 0}
    )


# -- tables -----------------------------------------------------------------------------------------------------------


def test_means_and_deviations() -> None:
    summary = summarise(SCORES)
    assert summary.mean_of_seed == pytest.approx({0: 0.7, 1: 0.8})
    assert summary.mean == pytest.approx(0.75)
    assert summary.deviation_of_seeds == pytest.approx(0.0707107)
    assert summary.mean_of_signer == pytest.approx({"ann": 0.95, "bob": 0.55})
    assert summary.deviation_of_signer == pytest.approx({"ann": 0.0707107, "bob": 0.0707107})


def test_table_says_all_of_it(tmp_path: Path) -> None:
    write_table(tmp_path, Results("top1", SCORES, SCORED), {"command": ["x"]})
    text = (tmp_path / "table.txt").read_text()
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert rows["held"] == ["out", "clips", "seed", "0", "seed", "1", "mean", "±", "over", "seeds"]
    assert rows["ann"] == ["10", "0.900", "1.000", "0.950", "±", "0.071"]
    assert "mean of 2 signers: 0.7500" not in text, "the row says it"
    assert "between signers ± 0.283; lowest bob, 0.550 of 64 clips\n" in text
    assert "ann: 0 of" not in text
    assert text.endswith("\nbob: 8 of 64 clips are of signs that nobody in training makes: never recognised\n")
    assert (tmp_path / "table.csv").read_text().splitlines() == [
        "signer,seed,top1,num_clips", "ann,0,0.9,10", "bob,0,0.5,64", "ann,1,1.0,10", "bob,1,0.6,64"
    ]  # fmt: skip
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["mean"] == pytest.approx(0.75)
    assert results["scores"]["1"] == {"ann": 1.0, "bob": 0.6}
    assert (results["num_clips"], results["num_clips_of_untrained_signs"]) == (
        {"ann": 10, "bob": 64}, {"ann": 0, "bob": 8}
    )  # fmt: skip


@pytest.mark.parametrize(("metric", "end"), [("top1", 1.0), ("loss", 1.02)])
def test_axis_of_scores_begins_at_0(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, metric: str, end: float) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path: drawn.append(self) or save(self, path))
    draw_table(tmp_path / "table.png", Results(metric, SCORES, SCORED))
    assert (tmp_path / "table.png").stat().st_size > 5000
    assert drawn[0].axes[0].get_xlim() == pytest.approx((0, end), abs=0.01)
    labels = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert labels == [shown_name("bob"), shown_name("ann")], "by their scores"


def test_worst_signer_is_told_whose_loss_is_the_highest() -> None:
    assert "highest ann, 0.950 of 10 clips" in "".join(table_lines(Results("loss", SCORES, SCORED)))


@pytest.mark.parametrize("of_bob", [{0: math.nan, 1: 0.6}, {0: math.nan, 1: math.nan}])
def test_a_score_that_is_no_number_is_told_with_those_that_are(tmp_path: Path, of_bob: dict[int, float]) -> None:
    """Found when all folds have trained: a table of the others is worth hours."""
    scores = {seed: {"ann": own["ann"], "bob": of_bob[seed], "cem": 2.0} for seed, own in SCORES.items()}
    results = Results("loss", scores, Scored({"ann": 10, "bob": 64, "cem": 7}, {"ann": 0, "bob": 0, "cem": 0}))
    write_table(tmp_path, results, {})
    draw_table(tmp_path / "table.png", results)
    rows = {line.split(" ")[0]: line.split()[1:] for line in (tmp_path / "table.txt").read_text().splitlines()}
    assert rows["ann"] == ["10", "0.900", "1.000", "0.950", "±", "0.071"]
    assert rows["bob"][-3:] == ["nan", "±", "nan"]
    assert "highest bob, nan of 64 clips" in (tmp_path / "table.txt").read_text()
    told = json.loads((tmp_path / "results.json").read_text())
    assert (told["mean"], told["mean_of_signer"]["bob"], told["scores"]["0"]["cem"]) == (None, None, 2.0)


def test_one_seed_has_no_deviation() -> None:
    assert "±" not in "".join(
        line for line in table_lines(Results("top1", {0: SCORES[0]}, SCORED)) if "between" not in line
    )
