"""What gloo, by which ranks on CPUs communicate, gets wrong if left alone: where it listens, and how it ends."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ds_trainer.preflight.probe import interface_for_others, own_name_address


def choose_interface() -> None:
    """Have gloo listen where other hosts reach this one.

    It takes the address of the host's own name, which is 127.0.1.1 as Debian sets it up (seen with torch 2.13.0).
    """
    if "GLOO_SOCKET_IFNAME" in os.environ:
        return
    own = own_name_address()
    interface = interface_for_others(os.environ["MASTER_ADDR"]) if own is None or own.startswith("127.") else None
    if interface is not None:
        os.environ["GLOO_SOCKET_IFNAME"] = interface


def wait_for_threads() -> None:
    """Wait until gloo's threads sleep: one that still drops the tensors of the last collective needs the interpreter.

    One that asks for it while Python ends aborts the process (signal 6, "terminate called without an active
    exception"; seen with torch 2.13.0 in one of twenty runs on busy cores). To destroy the group does not end the
    threads, as DeepSpeed holds groups too. They have two looks to show that they sleep: at one of them a thread may
    sleep because it waits for the interpreter, which it gets before the other.
    """
    looks_asleep = 0
    while looks_asleep < 2:
        time.sleep(0.01)
        is_awake = any("(pt_gloo_runloop) R" in stat for stat in _thread_states())
        looks_asleep = 0 if is_awake else looks_asleep + 1


def _thread_states() -> Iterator[str]:
    """What Linux says of each thread of this process: number, name, state and more; nothing on other systems."""
    for path in Path("/proc/self/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # the thread has ended
            yield path.read_text()
