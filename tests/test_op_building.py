"""Unit: an operation that a killed process was compiling is compiled by the next."""

import errno
import fcntl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from launching import ROOT, clean_environment
from torch.utils import cpp_extension
from torch.utils.file_baton import FileBaton

from ds_trainer.engine.op_building import no_lock_outlives_its_process

COMPILES = """
import sys, time
from torch.utils.file_baton import FileBaton
from ds_trainer.engine.op_building import no_lock_outlives_its_process

with no_lock_outlives_its_process():
    assert FileBaton(sys.argv[1]).try_acquire()
    print("compiles", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_lock_of_a_process_ends_with_it(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    command = [sys.executable, "-c", COMPILES, path]
    with (
        ThreadPoolExecutor(1) as pool,
        no_lock_outlives_its_process(),
        subprocess.Popen(command, cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, text=True) as other,
    ):
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "compiles\n"
            assert not FileBaton(path).try_acquire()
            waits = pool.submit(FileBaton(path).wait)
            with pytest.raises(TimeoutError):
                waits.result(0.5)
        finally:
            other.kill()
        waits.result(60)
        baton = FileBaton(path)
        assert baton.try_acquire()
        assert not FileBaton(path).try_acquire()
        baton.release()
        assert baton.try_acquire()
        baton.release()


def test_file_that_torch_left_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(cpp_extension, "_write_ninja_file_and_build_library", lambda **how: compiled.append(how))
    monkeypatch.setattr(cpp_extension, "_import_module_from_library", lambda *_: None)
    (tmp_path / "op.cpp").touch()
    (tmp_path / "lock").touch()  # of a run whose training was killed, before it was the system's
    with no_lock_outlives_its_process():
        cpp_extension.load("op", [str(tmp_path / "op.cpp")], build_directory=str(tmp_path))
    assert len(compiled) == 1


def test_where_the_system_has_no_locks_torch_locks_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_locks(*_: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", without_locks)
    path = tmp_path / "lock"
    with ThreadPoolExecutor(1) as pool, no_lock_outlives_its_process():
        baton = FileBaton(str(path))
        assert baton.try_acquire()
        assert path.exists()
        assert not FileBaton(str(path)).try_acquire()
        waits = pool.submit(FileBaton(str(path)).wait)
        time.sleep(0.3)
        assert not waits.done()
        baton.release()
        waits.result(10)
        assert not path.exists()
