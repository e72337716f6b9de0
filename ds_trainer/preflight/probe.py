"""What one host says of itself. Sent over ssh to its Python, so it needs nothing but the standard library.

python - '{"master": ..., "files": [...], "runs_dir": ..., "data": ..., "token": ...}' < probe.py
prints one line of JSON.
"""

import array
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import struct
import sys
import time
from typing import Any

PACKAGES = ("ds-trainer", "torch", "deepspeed", "numpy", "pydantic")
_SIOCGIFADDR = 0x8915  # asks Linux for the address of a network interface


def digest(path: str) -> str | None:
    """SHA-256 of a file, or of the names and sizes in a folder, through links; None where there is neither."""
    found = hashlib.sha256()
    if os.path.isfile(path):
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                found.update(block)
        return found.hexdigest()
    if not os.path.isdir(path):
        return None
    seen: set[str] = set()
    for folder, names, files in os.walk(path, followlinks=True):
        names.sort()
        if os.path.realpath(folder) in seen:
            names.clear()  # a link to a folder above, perhaps
            continue
        seen.add(os.path.realpath(folder))
        for name in sorted(files):
            whole = os.path.join(folder, name)
            size = os.path.getsize(whole) if os.path.exists(whole) else None  # a link to nothing
            found.update(os.fsencode(f"{os.path.relpath(whole, path)} {size}\n"))
    return found.hexdigest()


def versions() -> dict[str, str | None]:
    """Of the packages that decide the numbers; None where one is missing."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def route_to(master: str) -> dict[str, str | None]:
    """This host's address and interface on the way to the master."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((socket.gethostbyname(master), 9))  # sends nothing
            address: str = probe.getsockname()[0]
    except OSError as error:
        return {"address": None, "interface": None, "error": str(error)}
    return {"address": address, "interface": interface_of(address), "error": None}


def interface_of(address: str) -> str | None:
    """The name of the interface that has an address."""
    return next((name for name, own in interfaces().items() if own == address), None)


def interfaces() -> dict[str, str]:
    """The address of each network interface that has one."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = array.array("B", struct.pack("256s", name.encode()[:15]))
            try:
                fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request, True)
            except OSError:
                continue  # an interface without an address
            found[name] = socket.inet_ntoa(request[20:24].tobytes())
    return found


def interface_for_others(master: str) -> str | None:
    """The interface by which other hosts reach this one; None where that cannot be told.

    The one on the way to the master, or, on the master, whose name may mean loopback to itself, the only one there is.
    """
    towards_master = route_to(master)["interface"]
    if towards_master not in (None, "lo"):
        return towards_master
    others = [name for name, address in interfaces().items() if not address.startswith("127.")]
    return others[0] if len(others) == 1 else None


def own_name_address() -> str | None:
    """What this host's name resolves to here; None where it does not."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return None


def existing(path: str) -> str:
    """The path, or the nearest folder above it that exists."""
    while not os.path.exists(path):
        path = os.path.dirname(os.path.abspath(path))
    return path


def num_gpus() -> int | None:
    """As torch sees them; None where torch cannot be imported."""
    try:
        import torch  # takes seconds, of which every host has its own
    except Exception:
        return None
    return int(torch.cuda.device_count())


def main() -> None:
    """Answer what the argument asks."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    token_path = os.path.join(asked["runs_dir"], asked["token"])
    answer = {
        "name": socket.gethostname(),
        "master": asked["master"],
        "versions": versions(),
        "files": {path: digest(path) for path in asked["files"]},
        "gpus": num_gpus(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "route": route_to(asked["master"]),
        "own_name_address": own_name_address(),
        "interface_for_others": interface_for_others(asked["master"]),
        "free_bytes": shutil.disk_usage(existing(asked["runs_dir"])).free,
        "can_write": os.access(existing(asked["runs_dir"]), os.W_OK),
        "sees_token": os.path.exists(token_path),
        "data": digest(asked["data"]) if asked["data"] else "",
        "time": time.time(),  # last, as the answer arrives a moment later
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)  # Python with torch takes a second to leave, by which the clock would seem to be off
