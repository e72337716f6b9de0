"""Unit: ranks that would train on other things than the master's are told by host and name."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from ds_trainer import launched
from ds_trainer.errors import SettingsError
from ds_trainer.settings import combined_settings
from ds_trainer.tasks.toy.task import ToySettings, ToyTask

SETTINGS = combined_settings(ToySettings)
PLAIN: dict[str, Any] = {"deepspeed_config": Path("configs/bf16.json"), "num_points": 20}


def on_two_ranks(monkeypatch: pytest.MonkeyPatch, **of_second: Any) -> None:
    """What the second rank is asked about, where its settings are others."""
    said: list[Any] = []
    monkeypatch.setattr(launched, "gathered", lambda value: said.append(value) or said)
    monkeypatch.setattr(launched.socket, "gethostname", lambda: f"host{len(said)}")
    for own in ({}, of_second):
        settings = SETTINGS(**{**PLAIN, **own})
        launched.refuse_differing_ranks(settings, ToyTask(settings))


def test_equal_ranks_train(monkeypatch: pytest.MonkeyPatch) -> None:
    on_two_ranks(monkeypatch)
    on_two_ranks(monkeypatch, deepspeed_config=Path("/elsewhere/bf16.json"), runs_dir=Path("/local/1"))


@pytest.mark.parametrize(
    ("of_second", "problem"),
    [
        (
            {"num_epochs": 3},
            "--num_epochs: found 3 on host1 (rank 1), expected 50 as on rank 0; give all hosts the same",
        ),
        ({"num_points": 25}, "the training split: found 15 on host1 (rank 1), expected 12 as on rank 0"),
    ],
)
def test_differing_ranks_are_refused(monkeypatch: pytest.MonkeyPatch, of_second: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        on_two_ranks(monkeypatch, **of_second)
    assert any(found.startswith(problem) for found in caught.value.problems)


def test_other_data_of_the_same_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprints = iter("ab")
    monkeypatch.setattr(ToyTask, "fingerprint", lambda self: next(fingerprints))
    with pytest.raises(SettingsError, match="the data's fingerprint: found 'b' on host1"):
        on_two_ranks(monkeypatch)


class Launcher:
    """`deepspeed` above this process, as psutil tells of it."""

    def __init__(self, working_dir: Path, words: str):
        self.cwd = lambda: str(working_dir)
        self.cmdline = lambda: ["/usr/bin/python3", "/usr/bin/deepspeed", *words.split()]
        self.parents = lambda: [self]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--hostfile hosts train.py", "--hostfile hosts: asks for 6 ranks, found 4"),
        ("-H=hosts train.py", "--hostfile hosts: asks for 6 ranks, found 4"),
        ("-H hots --num_nodes 1 train.py", "--hostfile hots: no such file, so the launcher took this host alone"),
        ("--hostfile hosts --num_nodes=1 train.py", None),
        ("--hostfile hosts -i worker-1 train.py", None),
        ("--num_gpus 4 train.py --hostfile hots", None),
    ],
)
def test_ranks_are_as_many_as_the_launcher_was_to_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str, problem: str | None
) -> None:
    (tmp_path / "hosts").write_text("worker-1 slots=4\nworker-2 slots=2\n")
    monkeypatch.setattr(launched.psutil, "Process", lambda: Launcher(tmp_path, words))
    with pytest.raises(SettingsError, match=problem) if problem else nullcontext():
        launched.refuse_other_world_size(0, 4)
    if "hosts" in words:
        launched.refuse_other_world_size(6, 6)
