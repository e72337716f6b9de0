"""The files of ssh by which the hosts of a lab trust each other, and nobody else them."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

_CLIENT = """\
Host *
  IdentityFile {folder}/client_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
  ConnectTimeout 5
"""
_SERVER = """\
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/client_key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
UseDNS no
MaxStartups 100
PidFile /run/sshd.pid
"""


def write_ssh_files(folder: Path, hosts: Iterable[str]) -> None:
    """Write keys and settings for a client and a server on each of `hosts`, given by their names and addresses."""
    for key in ("host_key", "client_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(folder / key)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    (folder / "ssh_config").write_text(_CLIENT.format(folder=folder))
    (folder / "sshd_config").write_text(_SERVER.format(folder=folder))
    key_type, key, _ = (folder / "host_key.pub").read_text().split()
    (folder / "known_hosts").write_text("".join(f"{host} {key_type} {key}\n" for host in hosts))
