"""Unit: files appear whole or not at all, also on a full disk."""

import contextlib
import errno
import hashlib
import json
import math
import os
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from ds_trainer.errors import WriteError
from ds_trainer.files import aside_of, remove_asides, sha256, sync, write_atomically, write_json


def test_content_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"first, and longer", b"second"):
        write_atomically(path, lambda file, content=content: file.write(content))
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_text_that_is_no_utf8_comes_back_from_json(tmp_path: Path) -> None:
    folder = os.fsdecode(b"/data/caf\xe9")  # a name that Linux allows, as Python has it
    write_json(tmp_path / "environment.json", {"working_dir": folder, "signer": "نعم"})
    text = (tmp_path / "environment.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"working_dir": folder, "signer": "نعم"}
    assert "نعم" in text


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 64 vs 0")])
def test_failing_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "best.pth"
    path.write_bytes(b"old")

    def fail_half_way(file: IO[bytes]) -> None:
        file.write(b"new, but only in p")
        raise error

    with pytest.raises(WriteError, match=r"best\.pth: cannot be written \((No space left|unexpected pos).*make room"):
        write_atomically(path, fail_half_way)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt()])
def test_errors_of_another_kind_pass_and_leave_nothing_either(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "best.pth"
    path.write_bytes(b"old")

    def fail(file: IO[bytes]) -> None:
        file.write(b"new")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    seen = []

    def write(file: IO[bytes]) -> None:
        file.write(b"new")
        file.flush()
        seen.append(path.read_bytes())

    write_atomically(path, write)
    assert (seen, path.read_bytes()) == ([b"old"], b"new")


@pytest.mark.usefixtures("small_disk")
def test_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(WriteError, match=r"file: cannot be written \(File too large\); make room"):
        write_atomically(path, lambda file: file.write(bytes(200_000)))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("best.pth", ".hidden", ".notes.txt", "1.41")]
    for path in (*kept, aside_of(kept[0]), tmp_path / ".best.pth.other.host.41"):
        path.touch()
    (tmp_path / ".folder.41").mkdir()
    remove_asides(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*kept, tmp_path / ".folder.41"])


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "absent" / "a.json", tmp_path / "file" / "a.json"):
        with pytest.raises(WriteError, match=r"a\.json: cannot be written .* choose another place"):
            write_json(path, {})


def test_file_system_that_knows_no_sync_of_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    write_json(tmp_path / "a.json", {})
    assert (tmp_path / "a.json").read_text() == "{}\n"


def test_content_is_on_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a loss of power leaves the new name with nothing behind it."""
    done: list[object] = []
    rename = os.replace

    def fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        done.append("folder" if stat.S_ISDIR(status.st_mode) else status.st_size)

    def replace(source: Path, target: Path) -> None:
        done.append((source, target))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    path = tmp_path / "a"
    write_atomically(path, lambda file: file.write(b"12345"))
    assert done == [5, (aside_of(path), path), "folder"]


def test_disk_that_fails_to_keep_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output error"):
        sync(tmp_path)


def test_processes_of_one_number_on_two_hosts_write_by_two_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = aside_of(tmp_path / "a")
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    assert aside_of(tmp_path / "a") != here


def test_two_threads_may_write_the_same_file(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda number: write_json(tmp_path / "status.json", {"number": number}), range(100)))
    assert list(tmp_path.iterdir()) == [tmp_path / "status.json"]


def test_json_is_readable_and_ends_with_a_newline(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"sign": "مرحبا", "path": Path("runs")})
    text = path.read_text(encoding="utf-8")
    assert "مرحبا" in text
    assert text.endswith("}\n")
    assert json.loads(text) == {"sign": "مرحبا", "path": "runs"}


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_json_has_null_for_what_it_has_no_number_for(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"loss": math.inf, "by_group": {"a": {"loss": math.nan}}, "losses": [1.0, (-math.inf, 2)]})
    found = json.loads(path.read_text(), parse_constant=refuse)
    assert found == {"loss": None, "by_group": {"a": {"loss": None}}, "losses": [1.0, [None, 2]]}


def test_checksum(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content" * 100_000)
    assert sha256(path) == hashlib.sha256(b"content" * 100_000).hexdigest()


def test_a_link_that_another_planted_where_a_file_is_written_aside_leads_nowhere(tmp_path: Path) -> None:
    """The name is no secret: in a folder that all may write to, such as /tmp, it would have anything overwritten."""
    path, precious = tmp_path / "report.html", tmp_path / "precious"
    precious.write_text("precious")
    aside_of(path).symlink_to(precious)
    write_atomically(path, lambda file: file.write(b"page"))
    assert path.read_bytes() == b"page"
    assert not path.is_symlink()
    assert precious.read_text() == "precious"


def test_the_folder_that_one_is_in_is_no_file_to_write(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path), pytest.raises(WriteError, match=r"^\.: cannot be written"):
        write_json(Path("."), {})
    assert not list(tmp_path.iterdir())
