"""The end of a process whose gloo threads are still at work."""

import hashlib
import threading
from pathlib import Path

from ds_trainer import gloo


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
