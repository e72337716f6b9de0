"""A job's processes: started as one group, followed through their logs, ended by signals."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from launching import ROOT, clean_environment, free_port

_NUM_LAST_LINES = 15


class Trouble(Exception):
    """Something went otherwise than it must; the message says what."""


class OutOfTime(Trouble):
    """The soak's own time is up."""


class Session:
    """One job from its start to its end, however that comes about.

    Args:
        command: what each rank runs.
        log_stem: the log of rank 0 is `<log_stem>-rank_0.log`.
        time_left_s: asked while waiting; at 0 the soak is out of time.
    """

    def __init__(
        self, command: Sequence[str | Path], world_size: int, log_stem: Path, time_left_s: Callable[[], float]
    ):
        self.log_paths = [log_stem.with_name(f"{log_stem.name}-rank_{rank}.log") for rank in range(world_size)]
        self._time_left_s = time_left_s
        self._processes: list[subprocess.Popen[bytes]] = []
        self.started_s = time.monotonic()
        port = str(free_port())
        for rank, path in enumerate(self.log_paths):
            ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
            meeting = {"LOCAL_WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            # This checkout's package, also where another one is installed.
            paths = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
            with path.open("wb") as log:
                process = subprocess.Popen(
                    [str(word) for word in command],
                    cwd=ROOT,
                    env=clean_environment(paths | ({} if world_size == 1 else ranks | meeting)),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    process_group=self._processes[0].pid if self._processes else 0,
                )
            self._processes.append(process)

    @property
    def master_pid(self) -> int:
        """The process of rank 0."""
        return self._processes[0].pid

    def is_running(self) -> bool:
        """Whether any rank is."""
        return any(process.poll() is None for process in self._processes)

    def has_ended(self, rank: int) -> bool:
        """Whether one rank's process has."""
        return self._processes[rank].poll() is not None

    def text(self, rank: int = 0) -> str:
        """What a rank has said so far."""
        return self.log_paths[rank].read_text(encoding="utf-8", errors="replace")

    def signal(self, number: int, rank: int | None = None) -> None:
        """Send a signal to one rank, or to all at once."""
        if rank is not None:
            self._processes[rank].send_signal(number)
        elif self.is_running():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._processes[0].pid, number)

    def freeze(self) -> None:
        """Stop all ranks with SIGSTOP; returns when no thread of rank 0 moves any more."""
        self.signal(signal.SIGSTOP)
        self.has_come_within(self._stands_still, 5.0, look_every_s=0.0005)

    def _stands_still(self) -> bool:
        # A thread that waits for the disk (D) stops where it is when that is done; a signal reaches busy ones late.
        return all(_state_of(stat) in "TD" for stat in Path(f"/proc/{self.master_pid}/task").glob("*/stat"))

    def kill(self) -> None:
        """End all ranks with SIGKILL; returns when none is left."""
        self.signal(signal.SIGKILL)
        for process in self._processes:
            process.wait()

    def wait_until(self, has_come: Callable[[], bool], what: str, limit_s: float = 120.0) -> None:
        """Wait until something has come.

        Raises:
            Trouble: the job ended before, or the time is up.
        """
        if not self.has_come_within(has_come, limit_s):
            ended = "" if self.is_running() else f"; the job ended with {self.statuses()}"
            raise self.trouble(f"waited {limit_s:.0f} s for: {what}" if not ended else f"no sign of: {what}{ended}")

    def has_come_within(self, has_come: Callable[[], bool], limit_s: float, look_every_s: float = 0.01) -> bool:
        """Whether something comes before the job ends or the time is up."""
        give_up_s = time.monotonic() + limit_s
        while not has_come():
            if self._time_left_s() <= 0:
                raise OutOfTime("the soak's time is up")
            if time.monotonic() > give_up_s or not self.is_running():
                return has_come()
            time.sleep(look_every_s)
        return True

    def statuses(self) -> list[int | None]:
        """Exit status of each rank: negative for a signal, None while it runs."""
        return [process.poll() for process in self._processes]

    def end(self, limit_s: float = 240.0) -> list[int | None]:
        """Wait for all ranks to end; return their exit statuses."""
        if not self.has_come_within(lambda: not self.is_running(), limit_s):
            raise self.trouble(f"still running after {limit_s:.0f} s")
        return self.statuses()

    def trouble(self, what: str) -> Trouble:
        """An exception that shows the last lines of each rank."""
        shown = [what]
        for path in self.log_paths:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_NUM_LAST_LINES:]
            shown += [f"--- {path}", *lines]
        return Trouble("\n".join(shown))


def _state_of(stat_path: Path) -> str:
    """The state of a thread, a letter; T if it has ended by now."""
    try:
        return stat_path.read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "T"
