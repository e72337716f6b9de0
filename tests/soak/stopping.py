"""Signals that ask a run to stop: it saves, says so, ends with status 75, and nothing is repeated."""

import signal
import time
from pathlib import Path
from random import Random

from ds_trainer.job import EXIT_STOPPED
from soak import moments
from soak.courses import Course, Job, Lab
from soak.sessions import Session, Trouble
from soak.standing import part_of, status_of, step_of, whole_points
from soak.table import Row

_KILLED_AT_START = (-signal.SIGTERM, 128 + signal.SIGTERM)
_SECOND_AFTER_S = 0.03
_AT_ONCE_S = 2.0


def stop_again_and_again(lab: Lab, row: Row, random: Random, job: Job, signals: tuple[tuple[int, str], ...]) -> str:
    """Send each signal at its moment: to one rank, any, or to all."""
    course = Course(lab, row, job, row.scenario)
    row.num_inside = 0
    for number, moment in signals:
        rank = None if moment == moments.START else random.choice([None, *range(job.world_size)])
        with course.session() as session:
            moments.wait_for(moment, session, course, random)
            session.signal(number, rank)
            session.signal(signal.SIGCONT)  # it may be frozen
            check_stopped(session, course, number)
        row.times += 1
        row.num_inside += part_of(course.left) is not None
    course.finish()
    if any(row.repeated):
        raise Trouble(f"steps were repeated: {row.repeated}, expected none")
    return course.compare()


def check_stopped(session: Session, course: Course, number: int) -> None:
    """Wait for the session's end, which must be one at a resume point; at its start it may just end.

    Raises:
        Trouble: it ended in another way.
    """
    statuses = session.end(limit_s=60)
    if "stopped by" not in session.text():
        if number == signal.SIGTERM and all(status in _KILLED_AT_START for status in statuses):
            return
        raise session.trouble(f"ended with {statuses} after signal {number}, expected {EXIT_STOPPED}")
    if set(statuses) != {EXIT_STOPPED}:
        raise session.trouble(f"ended with {statuses} after signal {number}, expected {EXIT_STOPPED}")
    run_dir = newest_run(course.runs_dir)
    status, points = status_of(run_dir), whole_points(run_dir)
    name = signal.Signals(number).name
    if (status["status"], status["reason"]) != ("stopped", name):
        raise session.trouble(f"status.json says {status}, expected stopped by {name}")
    if not points or step_of(points[-1]) != status["steps_done"]:
        raise session.trouble(f"stopped at step {status['steps_done']}, resume points {[p.name for p in points]}")
    if f"the same command with --resume {run_dir} continues" not in session.text():
        raise session.trouble("the log does not say how to continue")


def newest_run(runs_dir: Path) -> Path:
    """The run directory that was made last."""
    return max(runs_dir.glob("*/"))


def interrupt_twice(lab: Lab, row: Row, random: Random, job: Job) -> str:
    """A second SIGINT, while the first is being obeyed, ends the process at once; a model that takes long to save."""
    course = Course(lab, row, job, row.scenario)
    with course.session("--num_hidden", "2500", "--resume_every_steps", "0") as session:
        course.wait_for_step(session)
        session.signal(signal.SIGINT)
        time.sleep(_SECOND_AFTER_S)
        session.signal(signal.SIGINT)
        sent_s = time.monotonic()
        statuses = session.end(limit_s=60)
        took_s = time.monotonic() - sent_s
        if statuses != [-signal.SIGINT] or took_s > _AT_ONCE_S:
            raise session.trouble(f"ended with {statuses} after {took_s:.1f} s, expected -2 at once")
    row.times = 1
    row.repeated.clear()
    row.notes.append(f"ended {1000 * took_s:.0f} ms after the second SIGINT")
    return "at once"
