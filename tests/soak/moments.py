"""When to strike: at a random moment of a phase, or at the sight of a file that is being written."""

import signal
import time
from collections.abc import Callable
from random import Random

from soak.courses import Course, Start, pause
from soak.sessions import Session

START, TRAINING, WRITING, BEST, DRAWING = "start", "training", "writing", "best.pth", "drawing"

_LONGEST_TRAINING_S = 0.9
_LONGEST_WATCH_S = 20.0
_LOOK_EVERY_S = 0.0005
_PARTS = (
    "resume/.aside",
    "resume/.aside/.state.pt.{pid}",
    "resume/.aside/state.pt",
    "resume/.aside/.manifest.json.{pid}",
    "resume/.aside/manifest.json",
    "resume/.latest.{pid}",
)


def wait_for(moment: str, session: Session, course: Course, random: Random) -> None:
    """Return when the moment has come; where it is a file that is being written, the job is frozen by then.

    Unfrozen, on a busy machine, it would mostly be done with the file when a signal arrives.
    """
    if moment == START:
        pause(session, random.uniform(0.1, 1.1 * course.start_s))
        return
    start = course.wait_for_step(session)
    if moment == DRAWING:
        last = f"epoch_{course.job.num_epochs:04d}-*"
        session.wait_until(lambda: any((start.run_dir / "resume").glob(last)), "the last resume point")
        pause(session, random.uniform(0.0, 0.5))
    elif moment == BEST:
        _freeze_at(session, _is_there(f".best.pth.{session.master_pid}", start))
    else:
        pause(session, random.uniform(0.0, _LONGEST_TRAINING_S))
        if moment == WRITING:
            part = random.choice(_PARTS).format(pid=session.master_pid)
            _freeze_at(session, _is_there(part, start), 5.0) or _freeze_at(session, _is_there(_PARTS[0], start))


def _freeze_at(session: Session, is_there: Callable[[], bool], limit_s: float = _LONGEST_WATCH_S) -> bool:
    """Freeze the job while a file is there; whether that was possible in good time."""
    give_up_s = time.monotonic() + limit_s
    while session.has_come_within(is_there, give_up_s - time.monotonic(), _LOOK_EVERY_S):
        session.signal(signal.SIGSTOP)
        if is_there():
            return True
        session.signal(signal.SIGCONT)
    return False


def _is_there(part: str, start: Start) -> Callable[[], bool]:
    return (start.run_dir / part).exists
