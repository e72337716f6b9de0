"""The page of a run: its content, and how it works in a real browser, large and small, without a network."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from browsing import SCREENS
from test_diagnostics import measures_of, records_of

from ds_trainer.calibration import Calibration
from ds_trainer.classification import measure
from ds_trainer.report.answers import Answers
from ds_trainer.report.page import NUM_DRAWN, Scored, _on_grid, write_page
from ds_trainer.task import Skeleton

ARABIC = "شكرا"
EVIL = "</script><script>document.title = 'broken'</script>&<b>"


def make_run_dir(path: Path, **changed: Any) -> Path:
    path.mkdir()
    environment = {
        "job": ["signs_26-x: 1,315 parameters; clips: 10 train", "1 rank on cpu"],
        "command": "python launch/train.py --local_rank=0 --labels 'my labels.csv'",
        "working_dir": "/home/somebody", "commit": "abc", "world_size": 1, "versions": {"torch": "2.13"},
        "devices": {"type": "cpu"}, "host": "laptop", "data_fingerprint": "0123",
    }  # fmt: skip
    (path / "environment.json").write_text(json.dumps({**environment, **changed}))
    (path / "engine.json").write_text(json.dumps({"gradient_clipping": 1.0}))
    (path / "run.yaml").write_text(yaml.safe_dump({"seed": 7, "runs_dir": "runs"}))
    return path


def scored_of(num_classes: int, num_each: int = 4) -> Scored:
    """Every third class has an Arabic name; class 5 has a name that would break a page that trusts it."""
    measures = measures_of(num_classes, num_each, noise=0.2)
    is_right = measures[:, 0] == measures[:, 2]
    confidence = torch.linspace(0.2, 0.9, len(measures), dtype=torch.float64)
    calibration = Calibration(1.5, 0.2, 0.1, confidence, is_right)
    answers = Answers(
        names=[f"clip {number}" for number in range(len(measures))],
        groups=[f"signer {number % 3}" for number in range(len(measures))],
        measures_NM=measures,
        confidence_N=confidence.numpy(),
    )
    names = [f"{ARABIC} {number}" if number % 3 == 0 else f"sign {number}" for number in range(num_classes)]
    names[5] = EVIL
    whole = {"loss": 0.5, "top1": float(is_right.double().mean())}
    by_group = {f"signer {number}": {**whole, "num_examples": 9 - number} for number in range(2)}
    return Scored(
        "test split, epoch 3", whole, by_group, names, answers, calibration,
        [skeleton(seed) for seed in range(len(answers.worst(NUM_DRAWN)))],
    )  # fmt: skip


def skeleton(seed: int) -> Skeleton:
    points = np.random.default_rng(seed).normal(size=(30, 5, 2)).astype(np.float32)
    points[3:6, 2] = np.nan
    return Skeleton(points, [0, 0, 1, 1, 2], [(0, 1), (1, 2)])


def data_of(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    start = text.index('id="data">') + len('id="data">')
    return json.loads(
        text[start : text.index("</script>", start)], parse_constant=pytest.fail
    )  # a browser's has no NaN


def test_page_of_a_classifier(tmp_path: Path) -> None:
    scored = scored_of(26)
    path = write_page(make_run_dir(tmp_path / "run"), records_of(4), "signs_26-x", scored)
    text, data = path.read_text(encoding="utf-8"), data_of(path)
    assert EVIL not in text
    assert data["classes"][5] == EVIL
    assert "--local_rank" not in text
    assert "&#39;my labels.csv&#39;" in text
    assert "1,315 parameters" in text
    assert text.count("<svg") == 5
    assert "http://" not in text.replace("http://www.w3.org/", "").replace("http://purl.org/", "").replace(
        "http://creativecommons.org/", ""
    )
    measures = scored.answers.measures_NM
    assert data["answers"]["true"] == measures[:, 0].int().tolist()
    assert data["answers"]["predicted"] == measures[:, 2].int().tolist()
    confidences = [data["answers"]["confidence"][place] for place in data["worst"]]
    assert confidences == sorted(confidences, reverse=True)
    assert all(data["answers"]["true"][place] != data["answers"]["predicted"][place] for place in data["worst"])


def test_page_of_answers_of_which_one_has_no_confidence(tmp_path: Path) -> None:
    """As of a clip whose logits are NaN, which the log names."""
    scored = scored_of(26)
    (worst,) = scored.answers.worst(1)
    scored.answers.confidence_N[worst] = np.nan
    data = data_of(write_page(make_run_dir(tmp_path / "run"), records_of(1), "x", scored))
    assert data["answers"]["confidence"][worst] is None
    assert data["answers"]["confidence"].count(None) == 1


@pytest.mark.parametrize(
    ("ranks", "hosts", "command"),
    [(1, ["laptop"], "python"), (2, ["laptop"], "deepspeed --num_gpus 2"), (4, ["laptop", "node"], "python")],
)
def test_command_trains_on_as_many_ranks_again(ranks: int, hosts: list[str], command: str, tmp_path: Path) -> None:
    """On several hosts their launcher does, which is said."""
    path = make_run_dir(tmp_path / "run", world_size=ranks, hosts=hosts)
    text = write_page(path, records_of(1), "x", scored_of(26)).read_text(encoding="utf-8")
    assert f"<code>{command} launch/train.py --labels &#39;my labels.csv&#39;</code>" in text
    assert ("of 2 hosts, laptop, node. Their launcher started each rank" in text) == (len(hosts) > 1)


def test_skeletons_are_drawn_on_a_grid_with_holes(tmp_path: Path) -> None:
    path = write_page(make_run_dir(tmp_path / "run"), records_of(2), "x", scored_of(26))
    drawn = data_of(path)["drawn"][0]
    frames = np.array(drawn["frames"]).reshape(30, 5, 2)
    expected = skeleton(0).points_TKD
    assert (frames[3:6, 2] == -1).all()
    is_there = np.isfinite(expected)
    assert frames[is_there].min() == 0 or frames[is_there].max() == 1000
    assert np.corrcoef(frames[is_there], expected[is_there])[0, 1] > 0.9, "x and y keep their order and direction"


def test_of_a_long_clip_a_hundred_frames_are_drawn_from_first_to_last() -> None:
    points = np.zeros((250, 2, 2), np.float32)
    points[:, 1] = np.arange(250)[:, None]
    frames = _on_grid(Skeleton(points, [0, 0], [(0, 1)]))["frames"]
    assert len(frames) == 100
    assert (frames[0], frames[-1]) == ([0, 0, 0, 0], [0, 0, 1000, 1000])


def test_classes_as_good_as_each_other_stand_in_their_order(tmp_path: Path) -> None:
    """Signs that are called by numbers: sorted as texts, 10 stands before 9."""
    measures = measures_of(12, 2, noise=0.0)
    answers = Answers([""] * len(measures), ["x"] * len(measures), measures, np.ones(len(measures)))
    scored = Scored("test split", {"loss": 0.5}, {}, [str(number) for number in range(12)], answers)
    text = write_page(make_run_dir(tmp_path / "run"), records_of(1), "x", scored).read_text(encoding="utf-8")
    table = text[text.index('id="classes"') :]
    places = [table.index(f"<tr><td><bdi>{number}</bdi>") for number in range(5, 12)]
    assert places == sorted(places)


def test_worst_class_stands_first_beside_what_it_is_most_often_taken_for(tmp_path: Path) -> None:
    targets, predicted = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2], [0, 0, 0, 0, 2, 2, 0, 1, 2, 2, 2, 0]
    measures = measure(torch.eye(3)[predicted], torch.tensor(targets))
    answers = Answers([""] * 12, ["x"] * 12, measures, np.ones(12))
    scored = Scored("test split", {"loss": 0.5}, {}, ["zero", "one", "two"], answers)
    text = write_page(make_run_dir(tmp_path / "run"), records_of(1), "x", scored).read_text(encoding="utf-8")
    rows = re.findall(r"<tr><td><bdi>(\w+)</bdi>.*?<td><bdi>(\w*)</bdi></td></tr>", text, re.DOTALL)
    assert rows == [("one", "two"), ("two", "zero"), ("zero", "")]


def test_page_of_a_task_without_classes(tmp_path: Path) -> None:
    scored = Scored("validation split, epoch 1", {"loss": 0.25}, {})
    path = write_page(make_run_dir(tmp_path / "run"), records_of(1), "regression", scored)
    text = path.read_text(encoding="utf-8")
    assert "0.250" in text
    assert "<h2>Confusion" not in text
    assert data_of(path) == {}


@pytest.fixture(params=[(26, "desktop"), (26, "phone"), (502, "phone")], ids=str)
def opened(request: pytest.FixtureRequest, browser: Any, tmp_path: Path) -> Iterator[Any]:
    """The page, opened; at the end nothing was fetched, nothing failed, and nothing lies beside the screen."""
    num_classes, screen = request.param
    path = write_page(make_run_dir(tmp_path / "run"), records_of(5), "signs-x", scored_of(num_classes))
    context = browser.new_context(offline=True, reduced_motion="reduce", **SCREENS[screen])
    page = context.new_page()
    failures: list[str] = []
    fetched: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("console", lambda message: failures.append(message.text))
    page.on("request", lambda made: fetched.append(made.url))
    page.goto(path.as_uri())
    yield page
    assert failures == []
    assert fetched == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_page_in_a_browser(opened: Any) -> None:
    assert opened.title().startswith("signs-x")
    num_classes = opened.locator("#class option").count()
    num_rows = opened.locator("#classes tbody tr").count()
    assert num_classes == num_rows

    # Confusions: the list of a class that is chosen says what the answers say.
    opened.select_option("#class", "3")
    assert "sign 4: " in opened.locator("#about").inner_text(), "class 3 lies on top of class 4"
    box = opened.locator("#matrix").bounding_box()
    answers = opened.evaluate("data.answers")
    true, predicted = next(
        pair for pair in zip(answers["true"], answers["predicted"], strict=True) if pair[0] != pair[1]
    )
    step = box["width"] / num_classes
    opened.locator("#matrix").click(position={"x": (predicted + 0.5) * step, "y": (true + 0.5) * step})
    if num_classes == 26:
        assert opened.locator("#class").input_value() == str(true)
    assert " taken for " in opened.locator("#cell").inner_text()

    # Tables: sorted by number one way and the other, and by part of a name.
    examples = opened.locator("#classes thead button", has_text="recall")
    examples.click()
    recalls = [float(text) for text in opened.locator("#classes tbody td:nth-child(4)").all_inner_texts()]
    assert recalls == sorted(recalls)
    examples.click()
    recalls = [float(text) for text in opened.locator("#classes tbody td:nth-child(4)").all_inner_texts()]
    assert recalls == sorted(recalls, reverse=True)
    opened.locator("#classes thead button", has_text="class").click()
    names = opened.locator("#classes tbody td:first-child").all_inner_texts()
    numbers = [int(name.split()[1]) for name in names if name.startswith("sign ")]
    assert numbers == sorted(numbers)
    opened.fill("#filter", ARABIC)
    visible = opened.locator("#classes tbody tr:visible td:first-child").all_inner_texts()
    assert len(visible) == len([number for number in range(num_classes) if number % 3 == 0])
    assert all(ARABIC in name for name in visible)
    direction = opened.evaluate("getComputedStyle(document.querySelector('#classes bdi')).unicodeBidi")
    assert direction == "isolate"


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_skeletons_move_when_they_are_asked_to(opened: Any) -> None:
    def picture() -> str:
        return opened.evaluate("document.querySelector('#cards canvas').toDataURL()")

    assert opened.locator("#cards figure").count() == NUM_DRAWN
    still = picture()
    opened.wait_for_timeout(200)
    assert picture() == still, "whoever asked for less motion gets none unasked"
    opened.click("#play")
    opened.wait_for_function("still => document.querySelector('#cards canvas').toDataURL() !== still", arg=still)
    opened.click("#play")
    opened.wait_for_timeout(100)
    paused = picture()
    opened.wait_for_timeout(200)
    assert picture() == paused
