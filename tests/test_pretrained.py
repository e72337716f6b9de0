"""Training that begins with the weights of another run: which fit, and whether they know what is held out."""

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import ROOT, run_ranks
from sign_data.writers import grid, source
from torch import nn

from ds_trainer.checkpoint import write_checkpoint
from ds_trainer.errors import CheckpointError, DataError
from ds_trainer.pretrained import begin_with
from ds_trainer.settings import combined_settings
from ds_trainer.task import Task
from ds_trainer.tasks.sign.settings import SignSettings
from ds_trainer.tasks.sign.store_writer import write_store
from ds_trainer.tasks.sign.task import SignTask
from ds_trainer.tasks.toy.task import ToySettings, ToyTask


def save(path: Path, model: nn.Module, **content: Any) -> Path:
    known = {"task": "toy", "description": {}, "settings": {}, "engine_config": {}, "epoch": 0}
    write_checkpoint(path, {**known, "state_dict": model.state_dict(), **content})
    return path


@pytest.fixture
def toy() -> Task:
    return ToyTask(combined_settings(ToySettings)(deepspeed_config=Path("unused")))


def test_weights_that_fit_are_taken_and_others_named(tmp_path: Path, toy: Task) -> None:
    former = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 5))
    former(torch.randn(32, 8))
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 3))
    head = model[2].weight.clone()
    (line,) = begin_with(save(tmp_path / "a.pth", former), model, toy)
    assert "7 of 9 weights are the model's" in line
    assert line.endswith("; new are 2.weight, 2.bias")
    for place in (0, 1):
        for name, value in model[place].state_dict().items():
            assert torch.equal(value, former[place].state_dict()[name]), name
    assert torch.equal(model[2].weight, head)


def test_names_that_a_wrapper_has_lengthened_are_shown_beside_each_other(tmp_path: Path, toy: Task) -> None:
    path = save(tmp_path / "a.pth", nn.Sequential(nn.Linear(8, 2)))
    told = (
        r"half at least; the model has 1\.0\.weight \(2, 8\), that run 0\.weight \(2, 8\): .*, or load .* build_model"
    )
    with pytest.raises(CheckpointError, match=told):
        begin_with(path, nn.Sequential(nn.Identity(), nn.Sequential(nn.Linear(8, 2))), toy)


def test_another_model_is_refused(tmp_path: Path, toy: Task) -> None:
    path = save(tmp_path / "a.pth", nn.Sequential(nn.Linear(8, 2), nn.Linear(2, 5)))
    model = nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 5))
    with pytest.raises(CheckpointError, match=r"1 of 4 weights are the model's, 1 % of its numbers; expected half"):
        begin_with(path, model, toy)


def test_those_before_are_looked_at_too(
    tmp_path: Path, toy: Task, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that began with another's weights knows what that had learnt."""
    model = nn.Linear(2, 2)
    save(tmp_path / "first.pth", model, description={"nth": 1}, settings={"pretrained": str(tmp_path / "gone.pth")})
    second = save(
        tmp_path / "second.pth", model, description={"nth": 2}, settings={"pretrained": f"{tmp_path}/first.pth"}
    )
    looked_at: list[Mapping[str, Any]] = []
    monkeypatch.setattr(
        toy, "check_pretrained", lambda checkpoint: looked_at.append(checkpoint["description"]) or ["a"]
    )
    monkeypatch.setattr(logging.getLogger("ds_trainer"), "propagate", True)
    assert begin_with(second, model, toy)[1:] == ["a", "a"]
    assert looked_at == [{"nth": 2}, {"nth": 1}]
    assert "gone.pth, whose weights it began with, is not here" in caplog.text


def test_weights_that_were_adapted_to_clips_nobody_knows_are_told(tmp_path: Path, toy: Task) -> None:
    model = nn.Linear(2, 2)
    first = save(tmp_path / "first.pth", model, adapted_to=7)
    second = save(tmp_path / "second.pth", model, adapted_to=2, settings={"pretrained": str(first)})
    for path, number in ((first, 7), (second, 9)):
        assert f"--pretrained was adapted to {number} examples, of whom is not known" in begin_with(path, model, toy)[1]


MakeTask = Callable[..., SignTask]


@pytest.fixture
def make_task(tmp_path: Path) -> MakeTask:
    """The sign task on 4 signs by 4 signers, 3 clips each; of a half of them for the data "some"."""
    clips = grid(4, 4, 3)
    write_store(tmp_path / "all", source(clips, 4))
    write_store(tmp_path / "some", source([clip for clip in clips if clip.signer in ("s01", "s02")], 4))
    others = [replace(clip, frames=clip.frames[:, ::-1]) for clip in clips]
    write_store(tmp_path / "others", source(others, 4))

    def make(data: str = "all", **given: Any) -> SignTask:
        settings = combined_settings(SignSettings)
        return SignTask(
            settings(deepspeed_config=Path("unused"), data=str(tmp_path / data), model_size="t_1_1", **given)
        )

    return make


def checkpoint_of(task: SignTask) -> dict[str, Any]:
    return {"task": "sign", "settings": task.settings.model_dump(mode="json", exclude={"config", "resume"})}


def test_held_out_signers_and_clips_that_are_known_are_refused(make_task: MakeTask) -> None:
    former = checkpoint_of(make_task(split="signer:s04"))
    assert make_task(split="signer:s04").check_pretrained(former) == []
    with pytest.raises(DataError, match="found 12 of the 12 test clips in its training, expected none"):
        make_task(split="signer:s03").check_pretrained(former)
    two_signs = checkpoint_of(make_task(split="signer:s04", selected_signs_to=2))
    with pytest.raises(DataError, match="found s03 in its training, expected nobody who is held out here"):
        make_task(split="signer:s03", selected_signs_from=3).check_pretrained(two_signs)
    assert make_task(split="signer:s04", selected_signs_from=3).check_pretrained(two_signs) == []


@pytest.mark.parametrize("num_members", [1, 2])
def test_weights_of_other_signs_stay_random(make_task: MakeTask, tmp_path: Path, num_members: int) -> None:
    """As many as before, so that they would fit by shape."""
    former = make_task(split="signer:s04", selected_signs_to=2, num_members=num_members)
    trained = former.build_model()
    for weight in trained.parameters():
        nn.init.normal_(weight)
    path = save(tmp_path / "a.pth", trained, description=former.description(), **checkpoint_of(former))
    for first_sign, is_same in ((1, True), (3, False)):
        signs = {"selected_signs_from": first_sign, "selected_signs_to": first_sign + 1}
        task = make_task(split="signer:s04", num_members=num_members, **signs)
        model = task.build_model()
        line, *differences = begin_with(path, model, task)
        taken = {name for name, value in model.state_dict().items() if torch.equal(value, trained.state_dict()[name])}
        head = {name for name in model.state_dict() if "to_logits" in name}
        assert len(head) == 2 * num_members
        assert taken == model.state_dict().keys() - (set() if is_same else head)
        assert ("; new are " in line) is not is_same
        assert bool(differences) is not is_same


def test_what_was_seen_otherwise_is_told(make_task: MakeTask, tmp_path: Path) -> None:
    """Weights fit by shape, and would be taken for those of other parts and features."""
    former = make_task(split="signer:s04", features=("place", "velocity"))
    path = save(tmp_path / "a.pth", former.build_model(), description=former.description(), **checkpoint_of(former))
    task = make_task(
        split="signer:s04",
        features=("velocity", "place"),
        parts=tuple(reversed(former.parts)),
        num_frames=40,
        motion_fraction=0.5,
    )
    line, told = begin_with(path, task.build_model(), task)
    assert "weights are the model's" in line
    assert told == (
        "--pretrained was trained with other settings: num_frames 50 (here 40), motion_fraction 0.8 (here 0.5), parts, "
        'features ["place", "velocity"] (here ["velocity", "place"]); '
        "give what that run's run.yaml has, unless it is meant so"
    )


def test_recordings_are_known_in_other_data_too(make_task: MakeTask) -> None:
    former = checkpoint_of(make_task("some", split="signer:s02"))
    with pytest.raises(DataError, match="test clips in its training"):
        make_task(split="signer:s01").check_pretrained(former)
    make_task(split="signer:s02").check_pretrained(former)
    strangers = checkpoint_of(make_task("others"))
    assert make_task(split="signer:s01").check_pretrained(strangers) == [], "s01 is somebody else there"


def test_what_validates_and_was_learnt_is_told(make_task: MakeTask) -> None:
    former = checkpoint_of(make_task(split="signer:s04", seed=1))
    (line,) = make_task(split="signer:s04", seed=2).check_pretrained(former)
    assert "of the clips that validate, which flatters validation" in line


def test_data_that_is_gone_cannot_be_checked(make_task: MakeTask) -> None:
    former = checkpoint_of(make_task())
    former["settings"]["data"] = "/nowhere"
    for checkpoint in (former, {**former, "task": "own:Task"}):
        (line,) = make_task().check_pretrained(checkpoint)
        assert "is not checked" in line


def test_clips_that_are_scored_and_known_are_told(make_task: MakeTask) -> None:
    trained = make_task(split="signer:s04")
    former = checkpoint_of(trained) | {"data_fingerprint": trained.fingerprint()}
    assert trained.check_scored(trained.test_set, [former]) == []
    assert make_task("others", split="all").check_scored(make_task("others", split="all").test_set, [former]) == []
    every = make_task(split="all")
    (line,) = every.check_scored(every.test_set, [former])
    assert line == "36 of the 48 scored clips were trained or validated on"
    first = checkpoint_of(make_task("some", split="signer:s02"))
    (line,) = make_task(split="signer:s01").check_scored(every.test_set, [former, first])
    assert line.startswith("36 of the 48")
    gone = {**first, "settings": {**first["settings"], "data": "/nowhere"}}
    (line,) = trained.check_scored(trained.test_set, [former, gone])
    assert line.startswith("not compared")


def test_data_of_the_training_that_has_changed_is_known_by_its_store(make_task: MakeTask, tmp_path: Path) -> None:
    """A random split of more clips is another one: what was trained on stands in the store of that time alone."""
    stores = tmp_path / "stores"
    former = checkpoint_of(make_task("some", split="random", stores_dir=stores))
    former |= {"data_fingerprint": make_task("some").fingerprint()}
    former["settings"]["data"] = str(tmp_path / "all")
    now = make_task(split="random", stores_dir=stores)
    assert SignTask.as_trained(former) is None
    assert now.check_scored(now.test_set, [former]) == [
        "not compared with its training clips, which are not here any more"
    ]
    shutil.copytree(tmp_path / "some", stores / "some")
    trained = SignTask.as_trained(former)
    assert trained is not None
    assert len(trained.store) == 24
    (line,) = now.check_scored(now.test_set, [former])
    assert "scored clips were trained or validated on" in line


ON_HOSTS_OF_THEIR_OWN = """
import os, sys
from ds_trainer.job import main
os.chdir(os.path.join(os.path.dirname(__file__), "host_" + os.environ["RANK"]))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_only_the_first_host_needs_the_file(tmp_path: Path, toy: Task) -> None:
    (tmp_path / "host_1").mkdir()
    (tmp_path / "host_0").mkdir()
    save(tmp_path / "host_0" / "former.pth", toy.build_model())
    (tmp_path / "train.py").write_text(ON_HOSTS_OF_THEIR_OWN)
    flags = ["--deepspeed_config", ROOT / "ds_configs/fp32.json", "--pretrained", "former.pth", "--dry_run"]
    run_ranks(tmp_path / "train.py", 2, ["--task", "toy", *flags])
