"""When to strike: at a random moment of a phase, or at the sight of a file that is being written."""

import signal
from pathlib import Path
from random import Random

from ds_trainer.files import aside_of
from soak.courses import Course, pause
from soak.sessions import Session
from soak.standing import last_step

START, TRAINING, WRITING, BEST, DRAWING = "start", "training", "writing", "best.pth", "drawing"

_MOST_STEPS = 60
_MOST_STEPS_WATCHED = 200
_LOOK_EVERY_S = 0.0005
_ASIDE = "resume/.aside"
_FILES = ("resume/.aside/state.pt", "resume/.aside/manifest.json")


def being_written(path: Path, pid: int) -> Path:
    """Where a process of this host writes at first what is to be `path`."""
    return aside_of(path).with_suffix(f".{pid}")


def wait_for(moment: str, session: Session, course: Course, random: Random) -> None:
    """Return when the moment has come; where it is a file that is being written, the job is frozen by then.

    Unfrozen, on a busy machine, it would mostly be done with the file when a signal arrives. A file that is never seen
    is noted in the course, which is bad then.
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
        path = being_written(start.run_dir / "best.pth", session.master_pid)
        course.note(moment, _freeze_at(session, start.run_dir, path, _MOST_STEPS_WATCHED))
    else:
        target = start.step + random.randint(1, _MOST_STEPS)
        session.wait_until(lambda: last_step(start.run_dir) >= target, f"step {target}")
        pause(session, random.uniform(0.0, 0.02))
        if moment == WRITING:
            course.note(moment, _freeze_in_writing(session, start.run_dir, random))


def _freeze_in_writing(session: Session, run_dir: Path, random: Random) -> bool:
    """Freeze the job at some part of a resume point, or, where that is over too soon, at any."""
    files = [run_dir / name for name in _FILES]
    aside = run_dir / _ASIDE
    part = random.choice([aside, *files, *(being_written(path, session.master_pid) for path in files)])
    if _freeze_at(session, run_dir, part, _MOST_STEPS):
        return True
    return _freeze_at(session, run_dir, aside, _MOST_STEPS_WATCHED)


def _freeze_at(session: Session, run_dir: Path, path: Path, most_steps: int) -> bool:
    """Freeze the job while a file is there; whether that was possible within so many steps."""
    last = last_step(run_dir) + most_steps
    while session.is_running() and last_step(run_dir) < last:
        if session.has_come_within(path.exists, 0.2, _LOOK_EVERY_S):
            session.freeze()
            if path.exists():
                return True
            session.signal(signal.SIGCONT)
    return False
