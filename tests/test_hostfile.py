"""Unit: hostfiles, right and wrong; what is accepted means the same to DeepSpeed's own parser."""

import os
from pathlib import Path

import pytest

from ds_trainer.errors import SettingsError
from ds_trainer.hostfile import MAX_SLOTS, read_hostfile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hostfile"


def problems(path: Path) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read_hostfile(path)
    return caught.value.problems


def test_hosts_in_their_order(path: Path) -> None:
    text = "# two nodes\n\nworker-2 slots=4\r\n  worker-1\tslots=08  # the small one\nann@10.0.0.3 slots=1"
    path.write_text(text)
    hosts = read_hostfile(path)
    assert list(hosts.items()) == [("worker-2", 4), ("worker-1", 8), ("ann@10.0.0.3", 1)]
    assert hosts == _read_by_deepspeed(path)


def _read_by_deepspeed(path: Path) -> dict[str, int] | None:
    from deepspeed.launcher.runner import fetch_hostfile

    return fetch_hostfile(str(path))


def test_all_problems_are_told_at_once(path: Path) -> None:
    path.write_text("a slots=2\na slots=3\nb\nc slots=0\nd slots=2 max_slots=4\n")
    assert problems(path) == [
        f"{path}:2: found a in line 1 already, expected each host once; keep one line",
        f"{path}:3: found 'b' alone, expected a line such as 'worker-1 slots=4'; add its number of processes",
        f"{path}:4: found slots='0', expected a whole number from 1 to {MAX_SLOTS}; mend it",
        f"{path}:5: found 'max_slots=4' behind slots, expected a line such as 'worker-1 slots=4'; remove it, or write "
        "# before a comment",
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a slots=-1", "found slots='-1'"),
        ("a slots=", "found slots=''"),
        ("a slots=4x", "found slots='4x'"),
        ("a slots=1.5", "found slots='1.5'"),
        ("a slots=٤", "found slots='٤'"),
        (f"a slots={MAX_SLOTS + 1}", "expected a whole number from 1 to"),
        ("a slots=" + "9" * 5000, "expected a whole number from 1 to"),
        ("a slots = 4", "found 'slots' behind the host"),
        ("a 4", "found '4' behind the host"),
        ("a Slots=4", "found 'Slots=4' behind the host"),
        ("a # slots=4", "found 'a' alone"),
        ("slots=4", "found the host 'slots=4'"),
        ("-oProxyCommand=x slots=4", "found the host '-oProxyCommand=x'"),
        ("a;reboot slots=4", "found the host 'a;reboot'"),
        ("\ufeffa slots=4", "found the host '\\ufeffa'"),
        ("host\x00 slots=4", "found the host 'host\\x00'"),
    ],
)
def test_line_that_is_no_host(path: Path, line: str, expected: str) -> None:
    path.write_text(f"good slots=1\n{line}\n", encoding="utf-8")
    (problem,) = problems(path)
    assert problem.startswith(f"{path}:2: {expected}") or (problem.startswith(f"{path}:2: ") and expected in problem)


@pytest.mark.parametrize("text", ["", "\n\n", "# a slots=4\n"])
def test_hostfile_without_hosts(path: Path, text: str) -> None:
    path.write_text(text)
    assert problems(path) == [f"{path}: found no hosts, expected a line such as 'worker-1 slots=4' for each; add them"]


def test_file_that_cannot_be_read(path: Path) -> None:
    assert "hostfile: cannot be read ([Errno 2] No such file" in problems(path)[0]
    assert "cannot be read (it is a folder)" in problems(path.parent)[0]
    path.write_bytes(b"a slots=4\n\xff slots=4\n")
    assert "cannot be read ('utf-8' codec can't decode" in problems(path)[0]
    path.write_bytes(b"# " * 2**20)
    assert "cannot be read (it is larger than" in problems(path)[0]
    os.mkfifo(path.with_name("pipe"))
    assert "cannot be read (it is no regular file)" in problems(path.with_name("pipe"))[0], "nobody writes into it"


def test_many_problems_are_cut_short(path: Path) -> None:
    path.write_text("a\n" * 1000)
    assert len(problems(path)) == 21
    assert problems(path)[-1] == "... and 980 more problems like these"
