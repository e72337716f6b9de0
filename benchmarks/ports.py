"""A port for ranks to meet at, for the benchmarks and the tests."""

import contextlib
import secrets
import socket


def free_port() -> int:
    """A port on which nobody listened a moment ago, below those that connections get: another may have one at once."""
    while True:
        port = 20_000 + secrets.randbelow(9_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
