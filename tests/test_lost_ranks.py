"""A rank that freezes, dies, stalls or fails: the others end within a bounded time and say which one it was."""

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty_ranks import FAULTY_TASK, TIMEOUT_S, TRAIN, assert_named, job
from launching import clean_environment, deepspeed, run, succeed, torchrun

from ds_trainer.watch.watch import EXIT_RANK_LOST

SECONDS = f"({TIMEOUT_S}|{TIMEOUT_S + 1})"  # a look comes late on a busy machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def test_frozen_rank_is_named(tmp_path: Path) -> None:
    with job(tmp_path, 2) as ranks:
        ranks.wait_for_step(40)
        ranks.signal(1, signal.SIGSTOP)
        assert ranks.statuses([0], TIMEOUT_S + 15) == [EXIT_RANK_LOST]
        assert_named(ranks, lost=1, speaker=0, others=[0], what=f"has not been heard of for {SECONDS} s")
        status = ranks.status_file()
        assert status["status"] == "failed"
        assert "rank 1 on" in str(status["reason"])


def test_frozen_master_is_named_by_another_and_ends_when_it_wakes(tmp_path: Path) -> None:
    with job(tmp_path, 3) as ranks:
        ranks.wait_for_step(40)
        ranks.signal(0, signal.SIGSTOP)
        assert ranks.statuses([1, 2], TIMEOUT_S + 15) == [EXIT_RANK_LOST] * 2
        assert_named(ranks, lost=0, speaker=1, others=[1, 2], what=f"has not been heard of for {SECONDS} s")
        ranks.signal(0, signal.SIGCONT)
        assert ranks.statuses([0], 15) == [EXIT_RANK_LOST]


@pytest.mark.parametrize("lost", [0, 1])
def test_killed_rank_is_named_within_seconds(tmp_path: Path, lost: int) -> None:
    with job(tmp_path, 2, "--stall_timeout_s", "120") as ranks:
        ranks.wait_for_step(40)
        ranks.signal(lost, signal.SIGKILL)
        assert ranks.statuses([1 - lost], 15) == [EXIT_RANK_LOST]
        assert_named(ranks, lost=lost, speaker=1 - lost, others=[1 - lost], what="is gone")


def test_rank_that_stalls_in_its_data_is_named_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY_TASK)
    with job(tmp_path, 2, "--task", "faulty:SleepingTask") as ranks:
        assert ranks.statuses([0, 1], 60) == [EXIT_RANK_LOST] * 2
        said = ranks.output(0)
        assert "rank 1 on" in said
        assert re.search(f"has not moved on for {SECONDS} s", said), said
        assert "rank 1 stood in fetching, epoch 1, step 16" in said, said
        assert "faulty.py:22 fail: time.sleep(9999)  # a disk that does not answer" in said, said
        assert "rank 0 on" in said, "where the other one waits"
        assert "error" not in ranks.output(1)


def test_rank_that_raises_shows_its_traceback_and_the_others_name_it(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY_TASK)
    with job(tmp_path, 2, "--task", "faulty:RaisingTask") as ranks:
        assert ranks.statuses([0, 1], 60) == [EXIT_RANK_LOST, 1]
        assert "ZeroDivisionError: clip 17 is broken" in ranks.output(1)
        assert "Traceback" in ranks.output(1)
        assert re.search(r"error: rank 1 on .* ended with ZeroDivisionError: clip 17 is broken", ranks.output(0))
        assert "Traceback" not in ranks.output(0), ranks.output(0)


def test_master_that_raises_is_named_too(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY_TASK.replace('== "1"', '== "0"'))
    with job(tmp_path, 2, "--task", "faulty:RaisingTask") as ranks:
        assert ranks.statuses([0, 1], 60) == [1, EXIT_RANK_LOST]
        assert "ZeroDivisionError: clip 17 is broken" in ranks.output(0)
        assert re.search(r"error: rank 0 on .* ended with ZeroDivisionError: clip 17 is broken", ranks.output(1))


def test_rank_that_crashes_in_a_library_shows_where(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY_TASK)
    with job(tmp_path, 2, "--task", "faulty:CrashingTask") as ranks:
        assert ranks.statuses([0, 1], 60) == [EXIT_RANK_LOST, -signal.SIGSEGV]
        assert re.search(r'faulty.py", line \d+ in fail', ranks.output(1)), ranks.output(1)
        assert re.search(r"error: rank 1 on .* is gone", ranks.output(0)), ranks.output(0)


@pytest.mark.parametrize("hungry", [0, 1])
def test_rank_that_is_out_of_memory_is_named_with_the_remedy(tmp_path: Path, hungry: int) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY_TASK.replace('== "1"', f'== "{hungry}"'))
    with job(tmp_path, 2, "--task", "faulty:HungryTask") as ranks:
        assert ranks.statuses([hungry, 1 - hungry], 60) == [2, EXIT_RANK_LOST]
        assert re.search(
            rf"error: rank {hungry} on .* ended with MemoryLimitError: out of memory: can't allocate memory: you tried "
            r"to allocate \d+ bytes.* lower train_micro_batch_size_per_gpu .* smaller model",
            ranks.output(1 - hungry),
        ), ranks.everything()
        assert "MemoryLimitError: out of memory: can't allocate" in str(ranks.status_file()["reason"])
        assert "Traceback" not in ranks.everything()
        assert ("error: out of memory: " in ranks.output(hungry)) == (hungry == 0), "only the master tells its own"


def test_ranks_that_were_all_suspended_go_on_in_silence(tmp_path: Path) -> None:
    with job(tmp_path, 2, "--num_epochs", "12") as ranks:
        ranks.wait_for_step(40)
        for number, seconds in ((signal.SIGSTOP, 2 * TIMEOUT_S), (signal.SIGCONT, 0)):
            for rank in (0, 1):
                ranks.signal(rank, number)
            time.sleep(seconds)
        assert ranks.statuses([0, 1], 120) == [0, 0], ranks.everything()
        assert ranks.status_file()["status"] == "finished"
        assert ranks.output(1) == ""
        assert "heard" not in ranks.output(0)


@pytest.mark.parametrize("launcher", [deepspeed, torchrun])
def test_rank_that_dies_before_training_is_named_though_the_launcher_ends_the_others(
    tmp_path: Path, launcher: Callable[[int], list[str]]
) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY_TASK)
    paths = os.pathsep.join([str(tmp_path), clean_environment()["PYTHONPATH"]])
    command = [*launcher(2), *TRAIN, "--task", "faulty:DiesEarlyTask", "--runs_dir", tmp_path / "runs"]
    ended = run(command, env={"PYTHONPATH": paths})
    assert ended.returncode != 0
    assert re.search(r"error: rank 1 on .* is gone", ended.stdout), ended.stdout


@pytest.mark.parametrize("rendezvous", [[], ["--standalone"]])
def test_torchrun_starts_ranks_again_and_they_continue(tmp_path: Path, rendezvous: list[str]) -> None:
    """Its store outlives them: the new ranks must not take the addresses of the dead for each other's."""
    (tmp_path / "faulty.py").write_text(FAULTY_TASK)
    paths = os.pathsep.join([str(tmp_path), clean_environment()["PYTHONPATH"]])
    launcher = [*torchrun(2, *rendezvous, "--max_restarts", "1"), *TRAIN]
    flags = ["--task", "faulty:DyingOnceTask", "--num_epochs", "2", "--resume", "auto", "--resume_every_steps", "5"]
    output = succeed([*launcher, *flags, "--runs_dir", tmp_path / "runs"], env={"PYTHONPATH": paths})
    (path,) = (tmp_path / "runs").glob("*/status.json")
    assert f"continuing {path.parent} after epoch" in output
    assert json.loads(path.read_text())["status"] == "finished"
