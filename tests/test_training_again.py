"""A process that trains several times, as a notebook or a search over settings does."""

import os
import sys
from pathlib import Path

import pytest
from launching import ROOT, succeed, torchrun, train_here, val_losses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SCRIPT = """
import gc, os, sys, threading

from ds_trainer.job import main

for config in sys.argv[2:]:
    arguments = ["--deepspeed_config", f"ds_configs/{config}", "--task", "toy", "--num_epochs", "2"]
    assert main([*arguments, "--runs_dir", sys.argv[1]]) == 0
    engines = [each for each in gc.get_objects() if type(each).__name__ == "DeepSpeedEngine"]
    print("engines", len(engines), "threads", len(os.listdir("/proc/self/task")))
assert main([*arguments, "--resume", "auto", "--runs_dir", sys.argv[1]]) == 0
thread = threading.Thread(target=lambda: print("in a thread:", main([*arguments, "--dry_run"])))
thread.start()
thread.join()
assert sys.excepthook is sys.__excepthook__
"""

FUNCTION = """
import json, sys

import ds_trainer
from ds_trainer.tasks.toy.task import ToyTask


class FourArms(ToyTask):
    def __init__(self, settings):
        super().__init__(settings.model_copy(update={"num_arms": 4}))


if __name__ == "__main__":
    given = {"deepspeed_config": sys.argv[1], "task": FourArms, "num_epochs": 1, "compile": False, "pretrained": None}
    run_dir = ds_trainer.train(**given, runs_dir="some runs")
    status = json.loads((run_dir / "status.json").read_text())["status"]
    num_arms = ds_trainer.load_checkpoint(run_dir / "best.pth")["description"]["num_arms"]
    print("trained:", [*(path.name for path in run_dir.glob("*.pth")), status, num_arms])
    print("dry:", ds_trainer.train(**given, dry_run=True))
    try:
        ds_trainer.train(**given, num_epoch=2)
    except ds_trainer.SettingsError as error:
        print("wrong:", error.problems)
    engine = json.load(open(sys.argv[1]))
    engine["zero_optimization"]["allgather_bucket_size"] = 1
    with open("refused.json", "w") as file:
        json.dump(engine, file)
    try:
        ds_trainer.train(**given | {"deepspeed_config": "refused.json"})
    except ds_trainer.SettingsError as error:
        print("refused:", error.problems)
"""


def test_each_training_is_like_the_first_and_leaves_nothing(tmp_path: Path) -> None:
    configs = ["fp32.json", "bf16.json", "fp32.json", "bf16_zero2.json", "fp32.json"]
    output = succeed([sys.executable, "-c", SCRIPT, tmp_path, *configs])
    assert "in a thread: 0" in output, "where Python lets nobody set signals"
    left = [line.split() for line in output.splitlines() if line.startswith("engines")]
    assert [int(words[1]) for words in left] == [0] * 5
    threads = [int(words[3]) for words in left]
    assert threads[1:] == threads[1:2] * 4, "gloo's, and the process group that torch itself keeps"
    first, _, third, _, fifth, *_ = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    assert val_losses(first) == val_losses(third) == val_losses(fifth)
    assert len(val_losses(first)) == 2


def test_training_at_zero_3_does_not_stop_the_next(tmp_path: Path) -> None:
    succeed([sys.executable, "-c", SCRIPT, tmp_path, "bf16_zero3.json", "bf16_zero3.json", "fp32.json"])


@pytest.mark.any_device
def test_training_as_a_function_gives_the_run_directory_or_raises(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(FUNCTION)
    output = succeed([sys.executable, "own.py", ROOT / "ds_configs" / "fp32.json"], cwd=tmp_path)
    assert "trained: ['best.pth', 'finished', 4]" in output
    assert "dry: None" in output
    assert "did you mean '--num_epochs'" in output.split("wrong: ")[1]
    assert "refused.json: refused by DeepSpeed: allgather_bucket_size must be" in output.split("refused: ")[1]


def test_python_that_leaves_assertions_out_trains_again(tmp_path: Path) -> None:
    """DeepSpeed relies on one to tell that a process group is no more."""
    given = f"deepspeed_config='ds_configs/fp32.json', task='toy', num_epochs=1, runs_dir={str(tmp_path)!r}"
    script = f"import ds_trainer\nfor _ in range(2): print('trained:', ds_trainer.train({given}))"
    assert succeed([sys.executable, "-O", "-c", script]).count("trained: ") == 2


SEVERAL_RANKS = """
import os, sys, threading, time

import ds_trainer

given = {"deepspeed_config": sys.argv[1], "task": "toy", "num_epochs": 1, "num_points": 100, "start_timeout_s": 60.0}
try:
    ds_trainer.train(**given, runs_dir="runs", resume="must")
except ds_trainer.CheckpointError:
    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    print("mended:", all(timer.finished.is_set() for timer in timers), flush=True)
for _ in range(2):
    time.sleep(0 if int(os.environ["RANK"]) else 2)  # the others find what rank 0 has left in the store
    print("trained:", ds_trainer.train(**given, runs_dir="runs"), flush=True)
"""


def test_several_ranks_train_again(tmp_path: Path) -> None:
    """The store of `torchrun` outlives a training, and what the first wrote there is not true of the second. After an
    error that is mended, nothing is left that would end the process."""
    (tmp_path / "again.py").write_text(SEVERAL_RANKS)
    output = succeed([*torchrun(2), "again.py", ROOT / "ds_configs" / "fp32.json"], cwd=tmp_path)
    assert output.count("mended: True") == 2
    assert output.count("trained: ") == 4
    assert len([*tmp_path.glob("runs/*/best.pth")]) == 2


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system does not tell which files are open")
def test_record_is_on_disk_before_the_resume_point_that_counts_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, fsync = [], os.fsync

    def noted(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    flags = ["--deepspeed_config", "ds_configs/fp32.json", "--task", "toy", "--num_epochs", "2"]
    train_here(*flags, "--runs_dir", tmp_path)
    states = [number for number, name in enumerate(synced) if "state.pt" in name]
    assert len(states) == 2
    for begin, end in zip([0, *states], states, strict=False):
        assert "metrics.jsonl" in synced[begin:end]
