"""The look at hosts before a job, on hosts that have something wrong with them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from launching import ROOT

from multinode.lab import Lab

pytestmark = [pytest.mark.multinode, pytest.mark.slow, pytest.mark.timeout(120)]

CHECK = [sys.executable, ROOT / "launch/check_hosts.py", "--deepspeed_config", ROOT / "ds_configs/bf16.json"]


def check(lab: Lab, work_dir: Path, *flags: str | Path) -> subprocess.CompletedProcess[str]:
    """As typed on the first host."""
    command = [*CHECK, "--hostfile", lab.hostfile, "--runs_dir", work_dir / "runs", *flags]
    return lab.hosts[0].call(command, cwd=work_dir, timeout_s=60)


def test_good_hosts(two_hosts: Lab, tmp_path: Path) -> None:
    ended = check(two_hosts, tmp_path)
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.splitlines()[-1] == "2 hosts are ready for 2 ranks"
    assert re.search(r"^node-1 +1 .* 192\.0\.2\.11 +eth0 .* shared$", ended.stdout, re.MULTILINE), ended.stdout


def test_each_problem_is_told_with_its_host_and_its_remedy(tmp_path: Path) -> None:
    data = tmp_path / "data"
    own_dirs = [tmp_path / "runs", data]
    with Lab(3, own_dirs=own_dirs, is_own_name_loopback=True) as lab:
        for host, clips in zip(lab.hosts[:2], ("clips", "other clips"), strict=True):
            (host.own(data) / "clips.npz").write_text(clips)
        lab.power_off(2)
        ended = check(lab, tmp_path, "--data", data)
    assert ended.returncode == 2
    for expected in (
        r"note: node-0: its own name resolves to 127\.0\.1\.1; fine: the trainer listens on eth0",
        r"note: node-1: its own name resolves to 127\.0\.1\.1; fine: the trainer listens on eth0",
        r"problem: node-1: the data differs from that on node-0; copy the data there",
        r"note: node-1: the runs directory is not the one of node-0; fine, as long as node-0 stays first",
        r"problem: node-2: cannot be reached by ssh .*; mend that first",
    ):
        assert re.search(f"^{expected}", ended.stdout, re.MULTILINE), ended.stdout
    assert ended.stdout.splitlines()[-1] == "2 problems: do not start yet"
