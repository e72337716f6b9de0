"""A run directory whose files were damaged: it is continued as it was, refused with one message, or passed over."""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ds_trainer.errors import CheckpointError
from ds_trainer.report.compare import main as compare
from ds_trainer.report.runs import find_runs
from ds_trainer.run.records import Records
from ds_trainer.run.resume import run_to_continue
from ds_trainer.run.resume_points import newest_resume_point, write_resume_point
from ds_trainer.source import load_source
from fuzz.strategies import examples, told

from .checkpoints import TOY, content, saved

SETTINGS = {"task": "toy", "seed": 3, "signers": []}
ENGINE = {"train_batch_size": 48, "bf16": {"enabled": True}}
IDENTITY = {**SETTINGS, "engine config": ENGINE, "data fingerprint": "abc"}
ENVIRONMENT = {"data_fingerprint": "abc", "world_size": 1, "commit": None, "devices": {}, "versions": {}}
STATE = {"world_size": 1, "run": {"steps_done": 7}, "engine": {"weights": {"w": torch.arange(50.0)}}}
NAMES = ("run.yaml", "engine.json", "environment.json", "status.json", "metrics.jsonl")

damages = st.one_of(
    st.tuples(st.just("cut"), st.integers(0, 10_000), st.just(b"")),
    st.tuples(st.just("flip"), st.integers(0, 10_000), st.integers(0, 7).map(lambda bit: bytes([1 << bit]))),
    st.tuples(st.just("put"), st.integers(0, 10_000), st.binary(max_size=20)),
    st.tuples(st.just("replace"), st.just(0), st.binary(max_size=200)),
    st.tuples(
        st.just("replace"),
        st.just(0),
        st.recursive(
            st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
    ),
)


def make_run(runs_dir: Path) -> Path:
    run_dir = runs_dir / "2026-01-01_00-00-00-toy"
    run_dir.mkdir(parents=True)
    (run_dir / "run.yaml").write_text(yaml.safe_dump(SETTINGS))
    (run_dir / "engine.json").write_text(json.dumps(ENGINE))
    (run_dir / "environment.json").write_text(json.dumps(ENVIRONMENT))
    (run_dir / "status.json").write_text(json.dumps({"status": "running"}))
    (run_dir / "metrics.jsonl").write_text('{"kind": "step", "step": 7}\n')
    write_resume_point(run_dir / "resume", "epoch_0000-step_00000007", STATE, num_kept=1)
    return run_dir


def damage(path: Path, how: tuple[str, int, bytes]) -> None:
    kind, place, data = how
    content = path.read_bytes()
    place = min(place, max(len(content) - 1, 0))
    if kind == "cut":
        path.write_bytes(content[:place])
    elif kind == "flip":
        path.write_bytes(content[:place] + bytes([content[place] ^ data[0]]) + content[place + 1 :])
    elif kind == "put":
        path.write_bytes(content[:place] + data + content[place:])
    else:
        path.write_bytes(data)


def identity_at(ranks: int) -> dict[str, Any]:
    return IDENTITY


@examples(150)
@given(st.sampled_from(NAMES), damages)
def test_damaged_run_is_continued_refused_or_passed_over(name: str, how: tuple[str, int, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run_dir = make_run(Path(folder))
        damage(run_dir / name, how)
        assert run_to_continue("auto", Path(folder), identity_at) in (run_dir, None)
        assert told(lambda: run_to_continue(str(run_dir), Path(folder), identity_at)) in (run_dir, None)
        assert isinstance(Records(run_dir / "metrics.jsonl").load(), list)


DEEP = "[" * 10**5
LAUGHS = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)), "task: *a39"])
HOSTILE = {
    "aliases that make 2**40 of one": ("run.yaml", LAUGHS),
    "lists within lists": ("run.yaml", f"task: {'[' * 5000}"),
    "a tag that runs code": ("run.yaml", "task: !!python/object/apply:os.mkdir [trace]"),
    **{f"deep {name}": (name, f"{DEEP}\n") for name in NAMES[1:]},
    "infinite world size": ("environment.json", '{"data_fingerprint": "abc", "world_size": 1e999}'),
    "deep manifest": ("resume/epoch_0000-step_00000007/manifest.json", DEEP),
    "a number that is none": ("run.yaml", 'task: toy\na: !!int ""'),
    **{f"pipe for {name}": (name, None) for name in NAMES},
    "pipe for a state": ("resume/epoch_0000-step_00000007/state.pt", None),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("name", "content"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_run_made_up_to_hang_or_crash_is_passed_over_or_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str | None
) -> None:
    """One such folder must not keep the others of a runs directory from being continued and compared."""
    monkeypatch.chdir(tmp_path)
    run_dir = make_run(tmp_path / "runs")
    shutil.copytree(run_dir, whole := tmp_path / "runs" / "2026-01-01_00-00-01-toy")
    os.utime(whole / "resume" / "epoch_0000-step_00000007", (0, 0))  # looked at last
    (run_dir / name).unlink()
    os.mkfifo(run_dir / name) if content is None else (run_dir / name).write_text(content)
    if name.endswith("state.pt"):
        found = {"files": {"state.pt": {"bytes": 0, "sha256": ""}}}
        (run_dir / name).with_name("manifest.json").write_text(json.dumps(found))
    assert run_to_continue("auto", tmp_path / "runs", identity_at) in (run_dir, whole)
    told(lambda: run_to_continue(str(run_dir), tmp_path / "runs", identity_at))
    found, _ = find_runs([run_dir, whole])
    assert found[-1].path == whole
    told(lambda: newest_resume_point(run_dir / "resume"))
    assert not (tmp_path / "trace").exists()


@examples(150)
@given(st.sampled_from(("state.pt", "manifest.json")), damages)
def test_damaged_resume_point_is_whole_or_refused(name: str, how: tuple[str, int, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run_dir = make_run(Path(folder))
        point = run_dir / "resume" / "epoch_0000-step_00000007"
        damage(point / name, how)
        found = told(lambda: newest_resume_point(run_dir / "resume"))
        if found is not None:
            _, state = found
            assert torch.equal(state["engine"]["weights"]["w"], STATE["engine"]["weights"]["w"])
            assert state["run"] == STATE["run"]


BEST = {**content("toy"), "state_dict": content("toy")["state_dict"]}
RUN_STATE = {"epochs_done": 1, "steps_done": 7}
WEIGHTS = {"weights": BEST["state_dict"], "moments": {}, "others": [{}]}


@pytest.mark.parametrize(
    ("state", "description"),
    [
        *(({}, None), ({"run": 3}, None), ({"run": RUN_STATE}, None), ({"run": RUN_STATE, "engine": {}}, None)),
        ({"run": RUN_STATE, "engine": {**WEIGHTS, "others": []}}, None),
        ({"run": RUN_STATE, "engine": {**WEIGHTS, "weights": dict.fromkeys(WEIGHTS["weights"], "x")}}, None),
        ({"run": RUN_STATE, "engine": WEIGHTS}, {}),
        ({"run": RUN_STATE, "engine": WEIGHTS}, {**TOY, "num_hidden": 20_000}),
    ],
)
def test_a_resume_point_that_somebody_made_up_is_told(tmp_path: Path, state: Any, description: Any) -> None:
    about = BEST if description is None else {**BEST, "description": description}
    (tmp_path / "best.pth").write_bytes(saved(about))
    write_resume_point(tmp_path / "resume", "epoch_0001-step_00000007", state, num_kept=1)
    assert told(lambda: load_source(tmp_path / "resume")) is None


def test_a_resume_point_that_is_whole_is_read(tmp_path: Path) -> None:
    (tmp_path / "best.pth").write_bytes(saved(BEST))
    write_resume_point(tmp_path / "resume", "epoch_0001-step_00000007", {"run": RUN_STATE, "engine": WEIGHTS}, 1)
    assert load_source(tmp_path / "resume")["epoch"] == 0


EPOCH = {"kind": "epoch", "epoch": 0, "train_loss": 1.0, "val_loss": 1.0, "seconds": 1.0, "is_best": True}


@pytest.mark.parametrize(
    ("changed", "is_read"),
    [
        ({"val_loss": [1]}, False),
        ({"val_loss": 10**400}, False),
        ({"epoch": 10**400}, False),
        ({"epoch": 1e308}, False),
        ({"top1": 10**400}, False),
        ({"learning_rate": -1e308}, True),
    ],
)
def test_a_record_that_somebody_made_up_is_compared_or_told(
    tmp_path: Path, changed: dict[str, Any], is_read: bool
) -> None:
    run_dir = make_run(tmp_path / "runs")
    (run_dir / "metrics.jsonl").write_text(json.dumps({**EPOCH, **changed}) + "\n")
    page = tmp_path / "page.html"
    assert compare([str(run_dir), "--page", str(page)]) == (0 if is_read else 2)
    assert page.exists() == is_read


@pytest.mark.timeout(120)
def test_a_state_that_stands_for_2_to_the_40_is_told(tmp_path: Path) -> None:
    value: list[Any] = ["ha"]
    for _ in range(40):
        value = [value, value]
    write_resume_point(tmp_path / "resume", "epoch_0001-step_00000007", {"run": RUN_STATE}, num_kept=1)
    point = tmp_path / "resume" / "epoch_0001-step_00000007"
    raw = saved({"format": value})
    (point / "state.pt").write_bytes(raw)
    listed = {"state.pt": {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}}
    (point / "manifest.json").write_text(json.dumps({"files": listed}))
    with pytest.raises(CheckpointError, match="the same value in many places, or in itself"):
        newest_resume_point(tmp_path / "resume")
