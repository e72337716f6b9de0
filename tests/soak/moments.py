"""When to strike: at a random moment of a phase, or at the sight of a file that is being written."""

import signal
from pathlib import Path
from random import Random

from soak.courses import Course, pause
from soak.sessions import Session
from soak.standing import last_step

START, TRAINING, WRITING, BEST, DRAWING = "start", "training", "writing", "best.pth", "drawing"

_MOST_STEPS = 60
_MOST_STEPS_WATCHED = 200
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
        _freeze_at(session, start.run_dir, f".best.pth.{session.master_pid}", _MOST_STEPS_WATCHED)
    else:
        target = start.step + random.randint(1, _MOST_STEPS)
        session.wait_until(lambda: last_step(start.run_dir) >= target, f"step {target}")
        pause(session, random.uniform(0.0, 0.02))
        if moment == WRITING:
            part = random.choice(_PARTS).format(pid=session.master_pid)
            if not _freeze_at(session, start.run_dir, part, _MOST_STEPS):
                _freeze_at(session, start.run_dir, _PARTS[0], _MOST_STEPS_WATCHED)


def _freeze_at(session: Session, run_dir: Path, part: str, most_steps: int) -> bool:
    """Freeze the job while a file is there; whether that was possible within so many steps."""
    path, last = run_dir / part, last_step(run_dir) + most_steps
    while session.is_running() and last_step(run_dir) < last:
        if session.has_come_within(path.exists, 0.2, _LOOK_EVERY_S):
            session.freeze()
            if path.exists():
                return True
            session.signal(signal.SIGCONT)
    return False
