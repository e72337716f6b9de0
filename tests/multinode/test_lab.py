"""The lab itself: hosts are apart from each other and from this machine, cables fail as told, and nothing is left."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from multinode.host import Host
from multinode.lab import Lab

pytestmark = [pytest.mark.multinode, pytest.mark.slow, pytest.mark.timeout(60)]


def can_reach(host: Host, other: Host) -> bool:
    """Whether a new connection can be made; three seconds must do."""
    probe = f"exec 3<>/dev/tcp/{other.address}/22"
    return host.call(["timeout", "3", "bash", "-c", probe]).returncode == 0


def test_hosts_reach_each_other_and_nothing_else(two_hosts: Lab) -> None:
    first, second = two_hosts.hosts
    assert first.run(["ssh", "node-1", "hostname; hostname -I"]).split() == ["node-1", second.address]
    assert second.run(["ssh", "node-0", "hostname"]).strip() == "node-0"
    routes = first.run(["ip", "route"])
    assert "default" not in routes
    assert len(routes.splitlines()) == 1
    assert socket.gethostname() not in ("node-0", "node-1")
    assert not Path("/sys/class/net/switch").exists()


def test_hosts_see_their_own_processes_and_folders_only(tmp_path: Path) -> None:
    own_dir, shared_dir = tmp_path / "own", tmp_path / "shared"
    shared_dir.mkdir()
    with Lab(2, own_dirs=[own_dir]) as lab:
        first, second = lab.hosts
        first.run(["sh", "-c", f"echo first > {own_dir}/file; echo first > {shared_dir}/file; touch /dev/shm/first"])
        assert second.run(["find", own_dir, "/dev/shm", "-type", "f"]) == ""
        assert second.run(["cat", shared_dir / "file"]) == "first\n"
        assert first.own(own_dir / "file").read_text() == "first\n"
        assert str(os.getpid()) not in second.run(["sh", "-c", "cd /proc; echo [0-9]*"]).split()
    assert list(own_dir.iterdir()) == []


def test_cables_fail_as_told_and_are_mended(two_hosts: Lab) -> None:
    first, second = two_hosts.hosts
    for fail in (two_hosts.cut, two_hosts.black_hole):
        assert can_reach(first, second)
        fail(1)
        assert not can_reach(first, second)
        two_hosts.mend(1)
    assert can_reach(second, first)


def test_limited_cable_is_as_slow_as_told(two_hosts: Lab) -> None:
    two_hosts.limit_rate(1, mbit_per_s=8)
    began, num_before = time.monotonic(), two_hosts.num_bytes(1)
    two_hosts.hosts[0].run(["ssh", "node-1", "head -c 2000000 /dev/zero"])
    assert 1.8 < time.monotonic() - began < 10
    assert two_hosts.num_bytes(1) - num_before > 2_000_000


def test_killed_process_and_host_without_power(two_hosts: Lab, tmp_path: Path) -> None:
    first, second = two_hosts.hosts
    started = [second.start(["sleep", seconds], "/", tmp_path / "log") for seconds in ("501", "502")]
    while len(second.processes("sleep 50")) < 2:
        time.sleep(0.01)
    second.kill("sleep 501")
    started[0].wait(5)
    assert [each.command.split()[1] for each in second.processes("sleep 50")] == ["502"]
    two_hosts.power_off(1)
    assert started[1].wait(5) != 0
    assert second.processes() == []
    assert not can_reach(first, second)


def test_own_name_means_loopback_where_wanted() -> None:
    with Lab(2, is_own_name_loopback=True) as lab:
        first = lab.hosts[0]
        assert [first.run(["getent", "hosts", name]).split()[0] for name in ("node-0", "node-1")] == [
            "127.0.1.1",
            lab.hosts[1].address,
        ]


def test_nothing_is_left_when_the_maker_is_killed() -> None:
    program = (
        "import time; from multinode.lab import Lab; lab = Lab(2); print(lab.dir, flush=True);"
        "lab.hosts[0].start(['sleep', '503'], '/', lab.dir / 'log'); print('started', flush=True); time.sleep(60)"
    )
    folder = Path(__file__).parents[1]
    maker = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=folder)
    assert maker.stdout is not None
    lab_dir = Path(maker.stdout.readline().strip())
    assert maker.stdout.readline() == "started\n"
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    maker.stdout.close()
    deadline = time.monotonic() + 10
    while lab_dir.exists() or _processes_with(str(lab_dir), "sleep 503"):
        assert time.monotonic() < deadline, (lab_dir, _processes_with(str(lab_dir), "sleep 503"))
        time.sleep(0.05)


def _processes_with(*texts: str) -> list[str]:
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            commands.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [command for command in commands if any(text in command for text in texts)]
