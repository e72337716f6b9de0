"""Where gloo listens, and the end of a process whose gloo threads are still at work."""

import hashlib
import os
import threading
from pathlib import Path

import pytest

from ds_trainer import gloo
from ds_trainer.preflight import probe

LO, ETH, WIFI = {"lo": "127.0.0.1"}, {"eth0": "10.0.0.2"}, {"wlan0": "192.168.0.7"}


@pytest.mark.parametrize(
    ("own_name", "towards_master", "interfaces", "expected"),
    [
        ("127.0.1.1", "10.0.0.2", LO | ETH | WIFI, "eth0"),
        (None, "10.0.0.2", LO | ETH | WIFI, "eth0"),
        ("127.0.1.1", "127.0.0.1", LO | WIFI, "wlan0"),
        ("127.0.1.1", "127.0.0.1", LO | ETH | WIFI, None),
        ("127.0.1.1", None, LO | WIFI, "wlan0"),
        ("10.0.0.2", "192.168.0.7", LO | ETH | WIFI, None),
    ],
)
def test_gloo_listens_where_other_hosts_reach_this_one(
    monkeypatch: pytest.MonkeyPatch,
    own_name: str | None,
    towards_master: str | None,
    interfaces: dict[str, str],
    expected: str | None,
) -> None:
    """On the way to the master; on the master itself, whose name is loopback there, by the only other interface."""
    monkeypatch.setattr(gloo, "own_name_address", lambda: own_name)
    monkeypatch.setattr(probe, "interfaces", lambda: interfaces)
    interface = None if towards_master is None else probe.interface_of(towards_master)
    monkeypatch.setattr(probe, "route_to", lambda master: {"interface": interface})
    monkeypatch.setenv("MASTER_ADDR", "node-1")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    gloo.choose_interface()
    assert os.environ.get("GLOO_SOCKET_IFNAME") == expected
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "given")
    gloo.choose_interface()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "given"


def test_threads_at_work_are_waited_for() -> None:
    is_named, is_to_end = threading.Event(), threading.Event()
    has_worked: list[bool] = []

    def work() -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("pt_gloo_runloop")
        is_named.set()
        hashlib.pbkdf2_hmac("sha256", b"as gloo does:", b"without the interpreter", 1_000_000)
        has_worked.append(True)
        is_to_end.wait()

    thread = threading.Thread(target=work)
    thread.start()
    is_named.wait()
    gloo.wait_for_threads()
    found = list(has_worked)
    is_to_end.set()
    thread.join()
    assert found, "left while the thread was at work"
