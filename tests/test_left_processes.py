"""A test that fails leaves no process behind, and no warning to the tests after it."""

import shutil
import sys
from pathlib import Path

import psutil
import pytest
from launching import ROOT, run

LEAVING = """
import gc, subprocess, sys

def test_leaves_processes():
    inner = "import os, time; print(os.getpid(), flush=True); time.sleep(300)"
    outer = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {inner!r}]); time.sleep(300)"
    process = subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, text=True)
    with open("pids", "w") as file:
        file.write(f"{process.pid} {process.stdout.readline()}")
    raise AssertionError("as a test may")

def test_after_it():
    gc.collect()
"""


@pytest.mark.slow
def test_failed_test_leaves_nothing_running(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_leaving.py").write_text(LEAVING)
    options = ["-W", "error", "-p", "no:cacheprovider", "-p", "no:randomly"]
    ended = run([sys.executable, "-m", "pytest", *options, "."], cwd=tmp_path)
    assert "1 failed, 1 passed" in ended.stdout, ended.stdout
    assert "ResourceWarning" not in ended.stdout
    numbers = set(map(int, (tmp_path / "pids").read_text().split()))
    left = [process for process in psutil.process_iter() if process.pid in numbers]  # killed, and on their way out
    assert not psutil.wait_procs(left, timeout=30)[1]
