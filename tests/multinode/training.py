"""Training on the hosts of a lab, with each launcher as the documentation tells users to type it."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from launching import ROOT

from multinode.host import Host
from multinode.lab import Lab

SCRIPT = ROOT / "launch/train.py"
KEEP_ALIVE = {"PDSH_SSH_ARGS_APPEND": "-o ServerAliveInterval=1 -o ServerAliveCountMax=3"}
Numbers = list[dict[str, Any]]
_FLAGS = [
    "--deepspeed_config", ROOT / "ds_configs/bf16.json", "--task", "toy", "--num_epochs", "3",
    "--record_every_steps", "1",
]  # fmt: skip
_NUMBERS = ("kind", "epoch", "step", "loss", "train_loss", "val_loss", "grad_norm", "learning_rate")


class Training:
    """A run on the hosts of a lab, in a folder of its own: what was said and recorded, and how it ended.

    Args:
        work_dir: where launchers start, with a `.deepspeed_env` for the environment on all hosts.
        env: what this holds besides.
    """

    def __init__(self, lab: Lab, work_dir: Path, env: Mapping[str, str] | None = None):
        self.lab, self.work_dir = lab, work_dir
        self.runs_dir = work_dir / "runs"
        self._log = work_dir / "output.log"
        self._launchers: list[subprocess.Popen[bytes]] = []
        work_dir.mkdir(parents=True, exist_ok=True)
        on_all_hosts = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests"), **(env or {})}
        lines = [f"{name}={value}\n" for name, value in on_all_hosts.items()]
        (work_dir / ".deepspeed_env").write_text("".join(lines))

    @staticmethod
    def command(runs_dir: Path, *flags: str | Path) -> list[str | Path]:
        """The script and its flags."""
        return [SCRIPT, *_FLAGS, "--runs_dir", runs_dir, *flags]

    def train(self, *flags: str | Path) -> list[str | Path]:
        """The script and its flags, for this run."""
        return self.command(self.runs_dir, *flags)

    def start(self, command: Sequence[str | Path], host: Host | None = None, **env: str) -> None:
        """Start a command on a host, the first if none is given."""
        host = self.lab.hosts[0] if host is None else host
        self._launchers.append(host.start(command, self.work_dir, self._log, {**KEEP_ALIVE, **env}))

    def deepspeed(self, *flags: str | Path, launcher: Sequence[str | Path] = (), hostfile: Path | None = None) -> None:
        """Start `deepspeed` on the first host, for all hosts of the lab or those in `hostfile`."""
        hostfile = self.lab.hostfile if hostfile is None else hostfile
        self.start(["deepspeed", "--hostfile", hostfile, *launcher, *self.train(*flags)])

    def ranks(self, *flags: str | Path, hosts: Sequence[Host] | None = None, master: str | None = None) -> None:
        """Start one rank a host, all or these, in this order, without a launcher: nobody ends a rank for another.

        A host without power starts nothing.
        """
        hosts = self.lab.hosts if hosts is None else hosts
        world = {"WORLD_SIZE": str(len(hosts)), "MASTER_ADDR": master or hosts[0].address, "MASTER_PORT": "29500"}
        for number, host in enumerate(hosts):
            if host.is_on:
                self.start(["python", *self.train(*flags)], host, RANK=str(number), LOCAL_RANK="0", **world)

    @property
    def output(self) -> str:
        """What all launchers and ranks have said so far."""
        return self._log.read_text() if self._log.exists() else ""

    def wait_for(self, is_so: Callable[[], bool], seconds: float, what: str) -> float:
        """Wait until something is so, and fail if it takes longer; return the seconds that it took."""
        began = time.monotonic()
        while not is_so():
            assert time.monotonic() - began < seconds, f"{what}: not within {seconds} s\n{self.output[-8000:]}"
            time.sleep(0.05)
        return time.monotonic() - began

    def wait_for_step(self, step: int) -> None:
        """Wait until a step is recorded; fail if a launcher ends before."""

        def has_come() -> bool:
            assert all(launcher.poll() is None for launcher in self._launchers), self.output[-8000:]
            return self.last_step() >= step

        self.wait_for(has_come, 120, f"step {step}")

    def last_step(self) -> int:
        """The last step that is recorded."""
        return max((int(record.get("step", 0)) for record in records_in(self.runs_dir)), default=0)

    def end(self, seconds: float) -> list[int]:
        """Wait for all that was started to end; return the statuses, in the order of the starts."""
        self.wait_for(lambda: all(each.poll() is not None for each in self._launchers), seconds, "end of the launcher")
        statuses = [int(launcher.returncode) for launcher in self._launchers]
        self._launchers.clear()
        return statuses

    def succeed(self, seconds: float = 120) -> None:
        """Wait for the end, which must be a good one."""
        statuses = self.end(seconds)
        assert set(statuses) == {0}, f"{statuses}\n{self.output[-8000:]}"
        assert self.status()["status"] == "finished"

    def ranks_end(self, seconds: float) -> float:
        """Wait until no rank runs on any host; return the seconds that it took."""
        return self.wait_for(
            lambda: not any(ranks_on(host) for host in self.lab.hosts), seconds, "end of the ranks on all hosts"
        )

    def kill_rank(self, number: int) -> None:
        """Kill the rank on a host."""
        (pid,) = ranks_on(self.lab.hosts[number])
        os.kill(pid, signal.SIGKILL)

    def runs_dirs(self) -> list[Path]:
        """The runs directory as each host sees it, the same one but once."""
        return list(dict.fromkeys(host.own(self.runs_dir) for host in self.lab.hosts))

    def status(self) -> dict[str, Any]:
        """What status.json says."""
        return dict(json.loads((self.run_dir() / "status.json").read_text()))

    def run_dir(self) -> Path:
        """The directory of the run, which is the only one."""
        (run_dir,) = self.runs_dir.iterdir()
        return run_dir


def records_in(runs_dir: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl of the run in a folder; none if there is none yet."""
    lines = [line for path in runs_dir.glob("*/metrics.jsonl") for line in path.read_text().split("\n")[:-1]]
    return [json.loads(line) for line in lines]


def numbers_in(runs_dir: Path) -> Numbers:
    """These records without what depends on the clock."""
    return [{name: record.get(name) for name in _NUMBERS} for record in records_in(runs_dir)]


def ranks_on(host: Host) -> list[int]:
    """The processes on a host that train: those of the script itself, not of a launcher that has it in its command."""
    processes = [
        each for each in host.processes(str(SCRIPT)) if Path(each.command.split()[0]).name.startswith("python")
    ]
    return [each.pid for each in processes if SCRIPT.name in " ".join(each.command.split()[1:3])]
