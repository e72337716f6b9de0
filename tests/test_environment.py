"""Unit: what a run notes of where it ran."""

import os
import subprocess
from pathlib import Path

import pytest

from ds_trainer.files import write_json
from ds_trainer.run import environment


def test_commit_is_that_of_this_source_and_not_of_whose_repository_it_was_installed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    source = tmp_path / "venv" / "environment.py"
    source.parent.mkdir()
    source.touch()
    monkeypatch.setattr(environment, "__file__", str(source))
    git("init")
    git("commit", "--allow-empty", "-m", "theirs")
    assert environment.describe_environment("")["commit"] is None
    git("add", "venv")
    git("commit", "-m", "ours")
    assert environment.describe_environment("")["commit"] == git("rev-parse", "HEAD")


def test_environment_of_a_folder_whose_name_is_no_utf8_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    monkeypatch.chdir(folder)
    write_json(tmp_path / "environment.json", environment.describe_environment("abc"))
    saved = environment.load_environment(tmp_path / "best.pth")
    assert saved is not None
    assert saved.working_dir == str(folder)


def test_environment_of_a_run_that_was_continued_for_months_is_read_back(tmp_path: Path) -> None:
    """Each time adds one more, of a command and a list of hosts: more than settings may be large."""
    one = environment.describe_environment("abc") | {"command": "x" * 2000}
    write_json(tmp_path / "environment.json", {**one, "continued": [one] * 500})
    assert environment.load_environment(tmp_path) is not None
