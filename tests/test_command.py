"""How the commands beside training end."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launching import ROOT, clean_environment

from ds_trainer.command import EXIT_INTERRUPTED, command
from ds_trainer.errors import EXIT_USER_ERROR, DataError


def test_what_the_user_can_mend_is_told_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    @command
    def main() -> int:
        raise DataError(["the first", "the second"])

    assert main() == EXIT_USER_ERROR
    assert capsys.readouterr().out == "error: the first\nerror: the second\n"


def test_a_mistake_in_the_program_keeps_its_traceback() -> None:
    @command
    def main() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main()


@pytest.mark.slow
def test_ctrl_c_ends_a_command_without_a_traceback_or_remains(tmp_path: Path) -> None:
    flags = ["--source", "synthetic", "--num_clips", "200000", "--stores_dir", tmp_path / "stores"]
    process = subprocess.Popen(
        [sys.executable, "launch/prepare.py", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean_environment(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a background job inherits as ignored
    )
    while not list(tmp_path.glob("stores/**/*")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == EXIT_INTERRUPTED, output
    assert output == ""
    assert not [path for path in tmp_path.glob("stores/**/*") if path.is_file() and path.suffix != ".lock"]
