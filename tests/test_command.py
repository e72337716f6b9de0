"""How the commands beside training end."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from launching import ROOT, clean_environment

from ds_trainer import evaluate, job
from ds_trainer.command import EXIT_INTERRUPTED, command
from ds_trainer.errors import EXIT_USER_ERROR, DataError
from ds_trainer.progress import log


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


@command
def answer() -> int:
    """A command that does well."""
    log.info("an answer")
    return 0


CUT_SHORT = "error: standard output: cannot be written (No space left on device), and is cut short; make room there"


@pytest.mark.parametrize(
    ("main", "told"),
    [(answer, CUT_SHORT), (lambda: evaluate.main(["absent.pth"]), CUT_SHORT), (lambda: job.main(["--absent"]), "")],
)
@pytest.mark.parametrize("write_through", [False, True])
def test_answers_that_a_full_disk_did_not_take_are_told(
    main: Callable[[], int],
    told: str,
    write_through: bool,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """But not the log of a training, whose product is elsewhere."""
    with open("/dev/full", "wb", buffering=0) as full:
        raw = full if write_through else io.BufferedWriter(full)
        with io.TextIOWrapper(raw, write_through=write_through) as output:
            monkeypatch.setattr(sys, "stdout", output)
            assert main() == EXIT_USER_ERROR
    assert capfd.readouterr().err.partition(", or choose another place")[0] == told


def test_reader_that_left_is_no_error(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert answer() == 0
    assert capfd.readouterr().err == ""


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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compare.py", "evaluate.py"])
@pytest.mark.parametrize("path", ["", "own"], ids=["the package of an environment", "the one beside it"])
def test_script_that_runs_the_package_of_another_checkout_says_so(tmp_path: Path, path: str, name: str) -> None:
    script = tmp_path / "launch" / name
    script.parent.mkdir()
    script.write_text((ROOT / "launch" / name).read_text())
    shutil.copytree(ROOT / "ds_trainer", tmp_path / "ds_trainer")
    environment = clean_environment({"PYTHONPATH": str(tmp_path if path else ROOT)})
    command = [sys.executable, script, tmp_path / "nothing"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    told = (
        f"note: {script} runs the package in {ROOT / 'ds_trainer'}, not the one beside it; export PYTHONPATH={tmp_path}"
    )
    assert ended.stderr.startswith(told) == (not path), ended.stderr
