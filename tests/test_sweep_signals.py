"""A sweep that is asked to end ends its trainings, also where it is asked again, or while it ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ds_trainer.cross_validation import command, sweep
from ds_trainer.cross_validation.folds import folds_of
from ds_trainer.job import EXIT_STOPPED
from ds_trainer.stopping import interrupt_once

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
FOLDS = folds_of(["s1", "s2", "s3"], None, 1, 0)


class Training(subprocess.Popen[bytes]):
    """Is asked to end while a signal arrives."""

    def __init__(self, program: str, number: signal.Signals):
        super().__init__([sys.executable, "-Sc", program])
        self._number = number

    def terminate(self) -> None:
        os.kill(os.getpid(), self._number)
        super().terminate()


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    before = {number: signal.signal(number, signal.default_int_handler) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def started() -> Iterator[list[Training]]:
    trainings: list[Training] = []
    yield trainings
    for training in trainings:
        training.kill()
        training.wait()


@pytest.mark.parametrize("number", NUMBERS)
def test_sweep_that_is_asked_twice_ends_all_trainings(
    number: signal.Signals, started: list[Training], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `timeout` asks: the process, and then its group."""

    def start(*_: Any) -> Training:
        started.append(Training("import time; time.sleep(60)", number))
        if len(started) == 2:
            os.kill(os.getpid(), number)  # to the main thread
        return started[-1]

    monkeypatch.setattr(sweep, "_start", start)
    interrupt_once()
    with pytest.raises(KeyboardInterrupt):
        sweep.run_folds(FOLDS, lambda fold: [], tmp_path, 2, lambda fold: False)
    assert [training.wait(30) for training in started] == [-signal.SIGTERM] * 2


def test_sweep_that_is_asked_while_a_failure_ends_it_ends_all_trainings(
    started: list[Training], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = ["import time; time.sleep(60)", "import time; time.sleep(8)", "raise SystemExit(2)"]

    def start(*_: Any) -> Training:
        started.append(Training(programs[len(started)], signal.SIGTERM))
        return started[-1]

    monkeypatch.setattr(sweep, "_start", start)
    interrupt_once()
    with pytest.raises(KeyboardInterrupt):
        sweep.run_folds(FOLDS, lambda fold: [], tmp_path, 3, lambda fold: False)
    assert [training.wait(30) for training in started] == [-signal.SIGTERM, -signal.SIGTERM, 2]


@pytest.mark.parametrize("number", NUMBERS)
def test_command_takes_the_signals_that_stop_a_run(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask_twice(*_: Any) -> None:
        for _time in range(2):
            os.kill(os.getpid(), number)

    monkeypatch.setattr(command, "load_settings", ask_twice)
    assert command.main([]) == EXIT_STOPPED


def test_sweep_in_the_background_ignores_what_its_shell_has_it_ignore() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupt_once()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
