"""The log and the bar: lines reach who reads them, and a run goes on where nobody does."""

import faulthandler
import os
import pty
import subprocess
import sys
import termios

import pytest
from launching import clean_environment

from ds_trainer.job import main
from ds_trainer.progress import with_bar

LINES_BEHIND_A_BAR = """
from ds_trainer.progress import log, start_log, with_bar
start_log()
for number in with_bar(range(3), 3, "epoch"):
    log.warning(f"line {number}")
"""


@pytest.mark.slow
@pytest.mark.parametrize("has_terminal", [False, True])
@pytest.mark.parametrize("is_read", [False, True])
def test_lines_within_a_bar(has_terminal: bool, is_read: bool) -> None:
    """Of a log into a pipe that is read, or whose reader has gone; the bar is shown where errors go to a terminal."""
    reader, writer = os.pipe()
    terminal, errors = pty.openpty() if has_terminal else os.pipe()
    if has_terminal:
        termios.tcsetwinsize(errors, (24, 80))
    if not is_read:
        os.close(reader)
    command = [sys.executable, "-c", LINES_BEHIND_A_BAR]
    process = subprocess.Popen(command, stdout=writer, stderr=errors, env=clean_environment())
    os.close(writer)
    assert process.wait(timeout=60) == 0
    os.write(errors, b"end")
    told = os.read(terminal, 100_000).decode()
    assert ("epoch" in told) == has_terminal, told
    assert "Error" not in told
    if is_read:
        assert os.read(reader, 1000) == b"line 0\nline 1\nline 2\n"
        os.close(reader)
    os.close(errors)
    os.close(terminal)


def test_training_starts_where_standard_error_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)  # as Python has it after 2>&-
    monkeypatch.setattr(faulthandler, "is_enabled", lambda: False)
    monkeypatch.setattr(faulthandler, "enable", lambda: os.fstat(sys.stderr.fileno()))
    assert main(["--nope"]) == 2
    assert list(with_bar(range(3), 3, "epoch")) == [0, 1, 2]
    sys.stderr.close()
