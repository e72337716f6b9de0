"""The end of a process whose gloo threads are still at work."""

import threading
import time
from pathlib import Path

from ds_trainer import gloo


def test_threads_at_work_are_waited_for() -> None:
    is_named, is_to_end = threading.Event(), threading.Event()
    cpu_times_s: list[float] = []

    def work() -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("pt_gloo_runloop")
        is_named.set()
        while time.thread_time() < 0.3:
            pass
        cpu_times_s.append(time.thread_time())
        is_to_end.wait()

    thread = threading.Thread(target=work)
    thread.start()
    is_named.wait()
    gloo.wait_for_threads()
    found = list(cpu_times_s)
    is_to_end.set()
    thread.join()
    assert found, "left while the thread was at work"
