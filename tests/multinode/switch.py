"""The switch that joins the hosts of a lab: a bridge in a network namespace of its own, with no way out of it."""

import json

from multinode.namespaces import Namespaces

_KEEPER = """
ip link add switch type bridge forward_delay 0
ip link set switch up
echo ready
cat >/dev/null
rm -rf "$1" || { sleep 1; rm -rf "$1"; }
"""
_BUFFERED_MS = 50


class Switch:
    """Cable N leads from `cable-N` here to `eth0` on host N. When the switch goes, so does the folder of the lab."""

    def __init__(self, lab_dir: str):
        self._namespaces = Namespaces(["net"], ["sh", "-ec", _KEEPER, "sh", lab_dir])
        self._namespaces.wait_until_ready()

    def plug(self, number: int, host: Namespaces, address: str) -> None:
        """Join a host by a cable, and give its end of it an address."""
        cable = f"cable-{number}"
        self._ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        self._ip("link", "set", cable, "master", "switch", "up")
        host.call("ip", "address", "add", f"{address}/24", "dev", "eth0")
        host.call("ip", "link", "set", "eth0", "up")

    def cut(self, number: int) -> None:
        """Pull a cable: both ends notice at once."""
        self._ip("link", "set", f"cable-{number}", "down")

    def mend(self, number: int) -> None:
        """Plug it in again, whatever was wrong with it."""
        self._ip("link", "set", f"cable-{number}", "master", "switch", "up")

    def black_hole(self, number: int) -> None:
        """Let everything on a cable vanish, though both ends believe that it is well."""
        self._ip("link", "set", f"cable-{number}", "nomaster")

    def limit_rate(self, number: int, host: Namespaces, mbit_per_s: float) -> None:
        """Limit how fast a cable is, each way for itself."""
        limit = ["root", "tbf", "rate", f"{mbit_per_s}mbit", "burst", "64kb", "latency", f"{_BUFFERED_MS}ms"]
        self._namespaces.call("tc", "qdisc", "replace", "dev", f"cable-{number}", *limit)
        host.call("tc", "qdisc", "replace", "dev", "eth0", *limit)

    def num_bytes(self, number: int) -> int:
        """How much has gone over a cable so far, both ways together."""
        shown = self._namespaces.call("ip", "-json", "-statistics", "link", "show", f"cable-{number}")
        return sum(int(ways["bytes"]) for ways in json.loads(shown)[0]["stats64"].values())

    def close(self) -> None:
        """Take it away, with all cables."""
        self._namespaces.close()

    def _ip(self, *words: str) -> None:
        self._namespaces.call("ip", *words)
