"""Lines of JSON over TCP connections that no worker process inherits."""

import contextlib
import json
import os
import socket
import weakref
from collections.abc import Iterator
from typing import Any

_LONGEST_LINE = 2**16
_open: "weakref.WeakSet[socket.socket]" = weakref.WeakSet()

NOT_A_MESSAGE = (ValueError, KeyError, TypeError, RecursionError)
CLOSED_THERE = (ConnectionRefusedError, ConnectionResetError, BrokenPipeError)
"""The other system says that nobody has this end of the connection any more, unlike one that says nothing."""


def listener(backlog: int) -> socket.socket:
    """Listens on a free port, at all addresses of this host."""
    is_dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if is_dual else socket.AF_INET
    return kept(socket.create_server(("", 0), family=family, backlog=backlog, dualstack_ipv6=is_dual))


def kept(opened: socket.socket) -> socket.socket:
    """`opened`, which stays with this process when it forks: a worker that held it open would hide the death of it."""
    _open.add(opened)
    return opened


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send one message."""
    connection.sendall(line_of(message))


def line_of(message: dict[str, Any]) -> bytes:
    """What `send` sends."""
    return json.dumps(message).encode() + b"\n"


def messages(connection: socket.socket) -> Iterator[dict[str, Any]]:
    """The messages that arrive, until the other side closes the connection.

    Raises:
        CLOSED_THERE, OSError: the connection broke, or was silent for longer than its timeout.
        NOT_A_MESSAGE: something else arrived, or half a line.
    """
    with connection.makefile("rb") as lines:
        while line := lines.readline(_LONGEST_LINE):
            yield json.loads(line)


def _close_in_child() -> None:
    for opened in list(_open):
        with contextlib.suppress(OSError):
            os.close(opened.detach())


os.register_at_fork(after_in_child=_close_in_child)
