"""Slurm on the hosts of a lab: the real daemons, with the least that a job of several hosts needs."""

import time
from pathlib import Path

from multinode.lab import Lab

PROGRAMS = ["slurmctld", "slurmd", "srun:slurm-client"]
_CONFIG = """\
ClusterName=lab
SlurmctldHost={master}
SlurmUser=root
AuthType=auth/none
CredType=cred/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
ReturnToService=2
StateSaveLocation={folder}/slurmctld
SlurmdSpoolDir={folder}/slurmd-%n
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
{nodes}
PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE
"""


class Slurm:
    """Slurm, up on all hosts of a lab; the first is its master and the one to submit from."""

    def __init__(self, lab: Lab):
        self._lab = lab
        self._dir = lab.dir / "slurm"
        self._env = {"SLURM_CONF": str(self._dir / "slurm.conf")}
        self._dir.mkdir()
        names = [host.name for host in lab.hosts]
        nodes = [f"NodeName={host.name} NodeAddr={host.address} CPUs=4 State=UNKNOWN" for host in lab.hosts]
        config = _CONFIG.format(master=names[0], folder=self._dir, nodes="\n".join(nodes), names=",".join(names))
        (self._dir / "slurm.conf").write_text(config)
        log = self._dir / "output.log"
        lab.hosts[0].start(["/usr/sbin/slurmctld", "-D"], "/", log, self._env)
        for host in lab.hosts:
            (self._dir / f"slurmd-{host.name}").mkdir()
            host.start(["/usr/sbin/slurmd", "-D", "-N", host.name], "/", log, self._env)
        self._wait_until_idle()

    def call(self, *command: str | Path, cwd: Path | str = "/") -> str:
        """Run a command of Slurm, which must end with status 0; return its output."""
        return self._lab.hosts[0].run(command, cwd=cwd, env=self._env)

    def _wait_until_idle(self) -> None:
        deadline = time.monotonic() + 60
        state = ""
        while state.split() != ["idle"] * len(self._lab.hosts):
            assert time.monotonic() < deadline, f"Slurm is {state}\n{self.logs()}"
            time.sleep(0.1)
            state = self._lab.hosts[0].call(["sinfo", "--noheader", "--Node", "--format=%t"], env=self._env).stdout

    def logs(self) -> str:
        """The last that its daemons have said."""
        return "\n".join(f"--- {path.name}\n{path.read_text()[-2000:]}" for path in sorted(self._dir.glob("*.log")))
