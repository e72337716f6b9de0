"""The look at hosts before a job: what each says, what is wrong with them together, one verdict.

A command named ssh that runs what it is given here stands in for the way to another host; hosts with a network of their
own are in tests/multinode.
"""

import copy
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launching import ROOT, run

from ds_trainer.preflight import asking, probe
from ds_trainer.preflight.asking import Answer, Question, ask_hosts
from ds_trainer.preflight.command import main
from ds_trainer.preflight.judging import problems_of

SSH = """#!/bin/sh
for last; do :; done
case "$*" in
  *far*) echo "ssh: connect to host far port 22: Connection refused" >&2; exit 255 ;;
  *silent*) sleep 20 ;;
  *bare*) echo "sh: 1: exec: python: not found" >&2; exit 127 ;;
esac
exec sh -c "$last"
"""

SAYS: dict[str, Any] = {
    "master": "node1",
    "versions": {"python": "3.12.3", "torch": "2.13.0", "deepspeed": "0.19.8"},
    "files": {"ds_configs/bf16.json": "abc"},
    "gpus": 8,
    "cores": 64,
    "route": {"address": "10.0.0.1", "interface": "eth0", "error": None},
    "own_name_address": "10.0.0.1",
    "interface_for_others": "eth0",
    "free_bytes": 2**40,
    "can_write": True,
    "sees_token": True,
    "data": "",
}


@pytest.fixture
def path_with_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(SSH)
    ssh.chmod(0o755)
    path = f"{ssh.parent}:/usr/bin:/bin"
    monkeypatch.setenv("PATH", path)
    return path


def answer(host: str, slots: int = 8, clock_offset_s: float = 0.0, **changed: Any) -> Answer:
    return Answer(host, slots, clock_offset_s, {**copy.deepcopy(SAYS), "name": host, **changed})


def test_good_hosts_have_no_problems() -> None:
    assert problems_of([answer("node1"), answer("node2")]) == []


OWN_NAME_IS_LOOPBACK = {"own_name_address": "127.0.1.1"}
NO_ROUTE = {"address": None, "interface": None, "error": "Name or service not known"}


@pytest.mark.parametrize(
    ("second", "expected", "is_fatal"),
    [
        (lambda: Answer("node2", 8, error="cannot be reached"), "cannot be reached", True),
        (lambda: answer("node2", versions={**SAYS["versions"], "torch": "2.6.0"}), "torch 2.6.0, but 2.13.0", True),
        (lambda: answer("node2", versions={**SAYS["versions"], "torch": None}), "torch is not installed", True),
        (lambda: answer("node2", files={"ds_configs/bf16.json": "abd"}), "differs from the one on node1", True),
        (lambda: answer("node2", files={"ds_configs/bf16.json": None}), "bf16.json is missing", True),
        (lambda: answer("node2", data="abc"), "the data differs", True),
        (lambda: answer("node2", slots=9), "slots=9, but 8 GPUs", True),
        (lambda: answer("node2", gpus=0), "no GPUs, but 8 on node1", True),
        (lambda: answer("node2", route=NO_ROUTE), "cannot resolve node1", True),
        (lambda: answer("node2", **OWN_NAME_IS_LOOPBACK), "resolves to 127.0.1.1", False),
        (lambda: answer("node2", **OWN_NAME_IS_LOOPBACK, interface_for_others=None), "no single other interface", True),
        (lambda: answer("node2", clock_offset_s=-60.0), "its clock is -60 s off", False),
        (lambda: answer("node2", name="node1"), "it calls itself node1, as node1 does", True),
        (lambda: answer("node2", sees_token=False), "the runs directory is not the one of node1", False),
    ],
)
def test_problem_of_a_host_is_told_with_a_remedy(second: Callable[[], Answer], expected: str, is_fatal: bool) -> None:
    (problem,) = problems_of([answer("node1"), second()])
    assert problem.host == "node2"
    assert expected in problem.what
    assert problem.is_fatal == is_fatal
    assert problem.remedy


def test_interface_that_the_trainer_takes_is_told() -> None:
    (problem,) = problems_of([answer("node1", **OWN_NAME_IS_LOOPBACK, interface_for_others="eth7"), answer("node2")])
    assert "the trainer listens on eth7" in problem.remedy


def test_disk_of_the_master() -> None:
    problems = problems_of([answer("node1", free_bytes=2**20, can_write=False), answer("node2", free_bytes=0)])
    assert [(problem.host, "--runs_dir" in problem.remedy) for problem in problems] == [("node1", True)] * 2


def test_nobody_is_taken_for_a_master_that_gave_no_answer() -> None:
    full = {"free_bytes": 0, "can_write": False, "sees_token": False}
    silent, *others = problems_of(
        [Answer("node1", 8, error="cannot be reached"), answer("node2", route=NO_ROUTE, **full), answer("node3")]
    )
    assert silent.host == "node1"
    assert [(problem.host, problem.what.split(" (")[0]) for problem in others] == [("node2", "cannot resolve node1")]


def test_user_of_the_master_is_no_part_of_its_name(path_with_ssh: str, tmp_path: Path) -> None:
    (here,) = ask_hosts({"ann@localhost": 1}, Question([], tmp_path / "runs"))
    assert (here.says["master"], here.says["route"]["address"]) == ("localhost", "127.0.0.1")


def test_hosts_are_really_asked(path_with_ssh: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text("{}")
    question = Question([file, tmp_path / "absent"], tmp_path / "runs", data=tmp_path)
    good, far, bare = ask_hosts({"here": 2, "far": 1, "bare": 1}, question)
    assert good.error is None
    assert good.clock_offset_s is not None
    assert abs(good.clock_offset_s) < 0.8, "the time that torch takes to leave is none of the clock's"
    assert good.says["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert [digest is None for digest in good.says["files"].values()] == [False, True]
    assert good.says["sees_token"]
    assert good.says["cores"] >= 1
    assert "cannot be reached by ssh" in str(far.error)
    assert "Connection refused" in str(far.error)
    assert "cannot run" in str(bare.error)
    assert list((tmp_path / "runs").iterdir()) == [], "nothing is left behind"


def test_folder_is_compared_by_what_training_reads_of_it(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    data.mkdir()
    elsewhere.mkdir()
    (data / "clip.npz").write_text("123")
    (data / "moved.npz").symlink_to("nowhere")
    Path(os.fsdecode(bytes(data) + b"/caf\xe9.npz")).write_text("123")
    (data / "more").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(data)
    before = probe.digest(str(data))
    assert before == probe.digest(str(data))
    (elsewhere / "clip.npz").write_text("1")
    assert probe.digest(str(data)) != before


def test_runs_directory_that_is_a_file_is_told(path_with_ssh: str, tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    (here,) = ask_hosts({"here": 1}, Question([], tmp_path / "runs"))
    assert not here.says["sees_token"]


@pytest.mark.timeout(15)
def test_host_that_says_nothing_is_not_waited_for(
    path_with_ssh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_ANSWER_TIMEOUT_S", 1.0)
    (silent,) = ask_hosts({"silent": 1}, Question([], tmp_path / "runs"))
    assert silent.error == "gave no answer in 1 s"


def test_config_that_comes_with_the_package_is_there(
    path_with_ssh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hosts").write_text("here slots=1\n")
    status = main(["--hostfile", "hosts", "--config", "ds_configs/recipes/unseen_signers.yaml", "--data", "default"])
    output = capsys.readouterr().out
    assert status == 0, output
    assert "missing" not in output


@pytest.mark.parametrize("flag", ["--deepspeed_config", "--config"])
def test_config_that_no_host_can_read_is_told_before_they_are_asked(
    flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hosts").write_text("here slots=1\n")
    (tmp_path / "config").write_text('{"train_micro')
    assert main(["--hostfile", str(tmp_path / "hosts"), flag, str(tmp_path / "config")]) == 2
    assert capsys.readouterr().out.startswith(f"error: {tmp_path / 'config'}")


def test_quote_that_is_not_closed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hosts").write_text("here slots=1\n")
    assert main(["--hostfile", str(tmp_path / "hosts"), "--ssh_args", "-p '22"]) == 2
    assert 'error: --ssh_args: found "-p \'22" (no closing quotation)' in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_command_ends_with_a_verdict(path_with_ssh: str, tmp_path: Path) -> None:
    command = [sys.executable, "launch/check_hosts.py", "--runs_dir", tmp_path / "runs", "--hostfile"]
    hosts = tmp_path / "hosts"
    hosts.write_text("here slots=1\n")
    ready = run([*command, hosts], cwd=ROOT, env={"PATH": path_with_ssh})
    assert ready.returncode == 0, ready.stdout
    assert "1 host is ready for 1 rank" in ready.stdout
    hosts.write_text("here slots=1\nfar slots=1\n")
    refused = run([*command, hosts], cwd=ROOT, env={"PATH": path_with_ssh})
    assert refused.returncode == 2
    assert "problem: far: cannot be reached by ssh" in refused.stdout
    absent = run([*command, tmp_path / "absent"], cwd=ROOT, env={"PATH": path_with_ssh})
    assert absent.returncode == 2
    assert "Traceback" not in absent.stdout
