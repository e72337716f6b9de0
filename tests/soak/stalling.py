"""One rank is frozen with SIGSTOP: the others say which one within bounded time, end, and the run continues."""

import re
import signal
import time
from random import Random

from soak import moments
from soak.courses import Course, Job, Lab
from soak.sessions import Session
from soak.table import Row

_STALL_TIMEOUT_S = 10
_LONGEST_S = 2 * _STALL_TIMEOUT_S
_END_S = 15


def freeze_each_rank(lab: Lab, row: Row, random: Random, job: Job) -> str:
    """Freeze the master, then each other rank."""
    course = Course(lab, row, job, row.scenario)
    for rank in range(job.world_size):
        with course.session("--stall_timeout_s", str(_STALL_TIMEOUT_S)) as session:
            moments.wait_for(moments.TRAINING, session, course, random)
            session.signal(signal.SIGSTOP, rank)
            _check_message(session, row, rank, job.world_size)
        row.times += 1
    course.finish()
    return course.compare()


def _check_message(session: Session, row: Row, frozen: int, world_size: int) -> None:
    others = [rank for rank in range(world_size) if rank != frozen]
    frozen_s = time.monotonic()
    pattern = re.compile(rf"^error: (rank {frozen} .*)$", re.MULTILINE)

    def found() -> re.Match[str] | None:
        return next(filter(None, (pattern.search(session.text(rank)) for rank in others)), None)

    session.wait_until(lambda: found() is not None, f"an error that names rank {frozen}", _LONGEST_S)
    told_s = time.monotonic() - frozen_s
    session.wait_until(lambda: all(map(session.has_ended, others)), "the end of the other ranks", _END_S)
    ended_s = time.monotonic() - frozen_s
    message = found()
    assert message is not None
    row.notes.append(f"rank {frozen} frozen: told after {told_s:.1f} s, ended after {ended_s:.1f} s: {message[1]}")
