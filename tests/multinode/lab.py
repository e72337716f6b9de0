"""The lab: several hosts on this machine, joined by a switch, with cables that can fail.

Hosts are Linux namespaces. Neither the machine's own network nor its files are touched, nothing leads out, and nothing
is left behind: all of it goes when the process that made the lab ends, however it ends.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from multinode.host import Host
from multinode.ssh_files import write_ssh_files
from multinode.switch import Switch

_PROGRAMS = {"ip": "iproute2", "tc": "iproute2", "unshare": "util-linux", "nsenter": "util-linux"}
_PROGRAMS |= {"ssh": "openssh-client", "ssh-keygen": "openssh-client", "/usr/sbin/sshd": "openssh-server"}
_NETWORK = "192.0.2"  # RFC 5737, for documentation: no real host has an address in it
_PKILL = """\
#!/bin/sh
# Ends what `pkill "$@"` would, process by process, and on this host only.
for pid in $(pgrep "$@"); do
    if [ "$pid" != $$ ] && [ "$pid" != $PPID ]; then kill "$pid"; fi
done
"""


def missing(programs: Sequence[str] = ()) -> str | None:
    """Why there can be no lab here, or None.

    Args:
        programs: what is needed on its hosts besides, as PROGRAM or PROGRAM:PACKAGE.
    """
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    wanted = _PROGRAMS | {word.partition(":")[0]: word.partition(":")[2] or word for word in programs}
    packages = {package for program, package in wanted.items() if shutil.which(program) is None}
    if packages:
        return f"needs Debian's {' '.join(sorted(packages))}"
    probe = "ip link add v0 type veth peer name v1 && ip link add b0 type bridge && tc qdisc add dev v0 root"
    probe += " tbf rate 1mbit burst 8kb latency 1ms"
    tried = subprocess.run(["unshare", "--net", "--mount", "sh", "-c", probe], capture_output=True, text=True)
    return f"this machine makes no network namespaces: {tried.stderr.strip()}" if tried.returncode else None


class Lab:
    """Hosts node-0, node-1, ... that reach each other by these names over ssh and any other protocol.

    Args:
        own_dirs: folders that each host has for itself; all others are shared.
        is_own_name_loopback: a host's own name means 127.0.1.1 to itself, as Debian sets it up.

    Attributes:
        dir: keys, and logs of the servers.
        hostfile: all hosts, with a slot each.
    """

    def __init__(self, num_hosts: int = 2, own_dirs: Sequence[Path] = (), is_own_name_loopback: bool = False):
        self.dir = Path(tempfile.mkdtemp(prefix="lab."))
        self.hostfile = self.dir / "hostfile"
        self.hosts: list[Host] = []
        self._switch = Switch(str(self.dir))
        names = {f"node-{number}": f"{_NETWORK}.{10 + number}" for number in range(num_hosts)}
        self._write_files(names, is_own_name_loopback)
        try:
            self.hosts = [Host(name, address, self.dir, own_dirs) for name, address in names.items()]
            for number, host in enumerate(self.hosts):
                host.wait_until_up()
                self._switch.plug(number, host.namespaces, host.address)
        except BaseException:
            self.close()
            raise

    def _write_files(self, names: dict[str, str], is_own_name_loopback: bool) -> None:
        write_ssh_files(self.dir, [*names, *names.values()])
        (self.dir / "pkill").write_text(_PKILL)
        self.hostfile.write_text("".join(f"{name} slots=1\n" for name in names))
        for host in names:
            (self.dir / host).mkdir()
            own = {host: "127.0.1.1"} if is_own_name_loopback else {}
            known = {"localhost": "127.0.0.1"} | names | own
            lines = [f"{address} {name}\n" for name, address in known.items()]
            (self.dir / host / "hosts").write_text("".join(lines))

    def cut(self, number: int) -> None:
        """Pull the cable of a host: both ends notice at once."""
        self._switch.cut(number)

    def black_hole(self, number: int) -> None:
        """Let everything that a host sends or should get vanish."""
        self._switch.black_hole(number)

    def mend(self, number: int) -> None:
        """Undo `cut` and `black_hole`."""
        self._switch.mend(number)

    def limit_rate(self, number: int, mbit_per_s: float) -> None:
        """Limit how fast the cable of a host is, each way for itself."""
        self._switch.limit_rate(number, self.hosts[number].namespaces, mbit_per_s)

    def num_bytes(self, number: int) -> int:
        """How much has gone over the cable of a host so far, both ways together."""
        return self._switch.num_bytes(number)

    def power_off(self, number: int) -> None:
        """End a host at once, without a farewell to anybody."""
        self._switch.black_hole(number)
        self.hosts[number].power_off()

    def close(self) -> None:
        """Take all of it away."""
        for host in self.hosts:
            host.power_off()
        self._switch.close()

    def __enter__(self) -> "Lab":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
