"""Unit: a run directory is one job's at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from launching import ROOT, clean_environment

from ds_trainer import claims
from ds_trainer.errors import SettingsError, WriteError

HOLDER = """
import sys, time
from pathlib import Path
from ds_trainer.claims import claims

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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full, a disk that is always full")
def test_full_disk_is_no_reason_to_stop_and_a_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to("/dev/full")
    with claims.claims() as claim:
        claim(tmp_path)
        with pytest.raises(WriteError, match=r"\.lock: cannot be written \(No such file"):
            claim(tmp_path / "absent")
