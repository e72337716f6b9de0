"""Asks all hosts at once, over ssh as the launcher does."""

import json
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ds_trainer.preflight import probe
from ds_trainer.problems import reason_of

_SSH_FAILED = 255
_ANSWER_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Answer:
    """What came back from a host.

    Args:
        slots: ranks that the hostfile wants there.
        clock_offset_s: its clock minus ours; None where it did not answer.
        says: as `probe.main` prints it; empty where it did not answer.
        error: why there is no answer.
    """

    host: str
    slots: int
    clock_offset_s: float | None = None
    says: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Question:
    """What every host is asked.

    Args:
        files: that must be the same on all.
        data: a file or folder that must be the same on all; None: nothing to compare.
        ssh_args: more arguments of ssh.
    """

    files: Sequence[Path]
    runs_dir: Path
    data: Path | None = None
    ssh_args: Sequence[str] = ()


def ask_hosts(slots_of: dict[str, int], question: Question) -> list[Answer]:
    """The answers of all hosts, in the order of the hostfile, whose first is the master."""
    master = next(iter(slots_of)).rpartition("@")[2]  # the user before it is ssh's
    with _token_in(question.runs_dir) as token, ThreadPoolExecutor(max_workers=32) as pool:
        asked = {
            "master": master,
            "files": [str(path) for path in question.files],
            "runs_dir": str(question.runs_dir.absolute()),
            "data": None if question.data is None else str(question.data.absolute()),
            "token": token,
        }
        # The interpreter is the virtual environment's: resolved, it would be the one that the environment was made of.
        words = (str(Path.cwd()), sys.executable, json.dumps(asked))
        command = "cd {} && exec {} - {}".format(*map(shlex.quote, words))
        ssh = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", *question.ssh_args]
        futures = [pool.submit(_ask, host, slots, [*ssh, host, command]) for host, slots in slots_of.items()]
        return [future.result() for future in futures]


@contextmanager
def _token_in(runs_dir: Path) -> Iterator[str]:
    """A file in the runs directory that other hosts see if it is the same folder for them."""
    name = f".preflight-{uuid.uuid4().hex}"
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        (runs_dir / name).touch()
    except OSError:
        pass  # whether it can be written is what each host says of itself
    try:
        yield name
    finally:
        with suppress(OSError):
            (runs_dir / name).unlink()


def _ask(host: str, slots: int, command: Sequence[str]) -> Answer:
    source = Path(probe.__file__).read_text(encoding="utf-8")
    try:
        # At the limit it waits for ssh alone, not for who else holds its pipes, such as a connection that it shares.
        ended = subprocess.run(
            command, input=source, capture_output=True, text=True, encoding="utf-8", timeout=_ANSWER_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return Answer(host, slots, error=f"gave no answer in {_ANSWER_TIMEOUT_S:.0f} s")
    except (OSError, ValueError) as error:
        return Answer(host, slots, error=f"cannot be asked ({reason_of(error)})")
    arrived = time.time()
    try:
        says = json.loads(ended.stdout)
        return Answer(host, slots, says["time"] - arrived, says)
    except (ValueError, KeyError, TypeError):
        return Answer(host, slots, error=_reason(ended.returncode, ended.stderr))


def _reason(status: int, errors: str) -> str:
    last = next(iter(errors.strip().splitlines()[-1:]), "no message")
    if status == _SSH_FAILED:
        return f"cannot be reached by ssh without a password ({last})"
    return f"cannot run {sys.executable} in {Path.cwd()} ({last})"
