"""A process that trains several times, as a notebook or a search over settings does."""

import sys
from pathlib import Path

import pytest
from launching import succeed, val_losses

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
