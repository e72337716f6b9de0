"""Unit: a run directory is one job's at a time."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
from launching import ROOT, clean_environment

from ds_trainer.errors import SettingsError, WriteError
from ds_trainer.run import claims

HOLDER = """
import sys, time
from pathlib import Path
from ds_trainer.run.claims import claims

with claims() as claim:
    claim(Path(sys.argv[1]))
    print("claimed", flush=True)
    time.sleep(600)
"""


def test_second_job_is_told_who_has_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_PATIENCE_S", 0.1)
    with claims.claims() as claim, claims.claims() as other:
        claim(tmp_path)
        with pytest.raises(
            SettingsError, match=rf"another job trains there \(process {os.getpid()} on .*--resume never"
        ):
            other(tmp_path)
        (tmp_path / "elsewhere").mkdir()
        other(tmp_path / "elsewhere")
    with claims.claims() as claim:
        claim(tmp_path)


def test_job_that_is_killed_leaves_the_directory_to_the_next(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, tmp_path]
    with subprocess.Popen(command, cwd=ROOT, env=clean_environment({}), stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "claimed\n"
        holder.kill()
    with claims.claims() as claim:
        claim(tmp_path)


def test_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    with claims.claims() as claim, pytest.raises(WriteError, match=r"\.lock: cannot be written \(No such file"):
        claim(tmp_path / "absent")


def test_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: IO[bytes], operation: int) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with claims.claims() as claim:
        claim(tmp_path)


def test_file_system_that_locks_for_writing_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS does."""
    flock = fcntl.flock

    def of_nfs(file: IO[bytes], operation: int) -> None:
        if not file.writable():
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", of_nfs)
    monkeypatch.setattr(claims, "_PATIENCE_S", 0.5)
    with claims.claims() as claim, claims.claims() as other:
        claim(tmp_path)
        with pytest.raises(SettingsError, match="another job trains there"):
            other(tmp_path)


def test_a_link_in_place_of_the_lock_is_told_and_its_target_left(tmp_path: Path) -> None:
    """A run directory from elsewhere may hold one: what it led to became `process N on HOST`."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(precious)
    with claims.claims() as claim, pytest.raises(WriteError, match=r"\.lock: cannot be written \(Too many levels of"):
        claim(tmp_path / "run")
    assert precious.read_text() == "precious"
