"""A disk that is full, read-only or gone in mid-training: training goes on, and says what was not written."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from soak.courses import Course, Job, Lab, Start, wait_for_points
from soak.disk import Disk
from soak.sessions import Session, Trouble
from soak.standing import status_of, whole_points
from soak.table import Row

_USER_ERROR = 2
_NOT_WRITTEN = "training goes on, and"


@contextlib.contextmanager
def _course_on_a_small_disk(lab: Lab, row: Row, job: Job) -> Iterator[tuple[Course, Disk]]:
    course = Course(lab, row, job, row.scenario, runs_dir=lab.dir / f"disk_{row.scenario.replace(' ', '_')}")
    with Disk(course.runs_dir) as disk:
        yield course, disk


def full_for_a_while(lab: Lab, row: Row, random: Random, job: Job) -> str:
    """Killed while the disk is full; continued, full again, freed: written again, to the same end."""
    with _course_on_a_small_disk(lab, row, job) as (course, disk):
        with course.session() as session:
            _fill(session, course, disk)
        disk.free()
        with course.session() as session:
            start = _fill(session, course, disk)
            _wait_for_the_next_epoch(session)
            _expect_good_point(session, start)
            disk.free()
            session.wait_until(lambda: ": written again" in session.text(), "a line that it was written again")
            course.expect(session, [0])
        row.times = 2
        return course.compare()


def full_to_the_end(lab: Lab, row: Row, random: Random, job: Job) -> str:
    """Status 2 and what was not written; continued once there is room, to the same end."""
    with _course_on_a_small_disk(lab, row, job) as (course, disk):
        with course.session() as session:
            start = _fill(session, course, disk)
            _expect_error_at_the_end(session, course, row, start.run_dir)
        _expect_good_point(session, start)
        disk.free()
        row.times = 1
        course.finish()
        return course.compare()


def read_only_to_the_end(lab: Lab, row: Row, random: Random, job: Job) -> str:
    """The same, with a disk that the system made read-only."""
    with _course_on_a_small_disk(lab, row, job) as (course, disk):
        with course.session() as session:
            start = _wait_for_the_middle(session, course)
            session.wait_until(disk.is_read_only_now, "a read-only remount")
            _expect_error_at_the_end(session, course, row, start.run_dir)
        _expect_good_point(session, start)
        disk.make_writable()
        row.times = 1
        course.finish()
        return course.compare()


def gone_to_the_end(lab: Lab, row: Row, random: Random, job: Job) -> str:
    """The run directory vanishes: nothing can be saved, and the job says so."""
    course = Course(lab, row, job, row.scenario)
    with course.session() as session:
        start = _wait_for_the_middle(session, course)
        start.run_dir.rename(course.dir / "moved_away")
        _expect_error_at_the_end(session, course, row, start.run_dir)
    row.times = 1
    row.repeated.clear()
    return "told"


def _wait_for_the_middle(session: Session, course: Course) -> Start:
    start = course.wait_for_step(session)
    wait_for_points(session, start, 3)
    return start


def _fill(session: Session, course: Course, disk: Disk) -> Start:
    """Fill the disk until the job says so: a resume point that is being replaced leaves room once more."""
    start = _wait_for_the_middle(session, course)

    def is_told() -> bool:
        disk.fill()
        return " not written: " in session.text()

    _wait(session, is_told, "a warning that something was not written")
    return start


def _wait(session: Session, has_come: Callable[[], bool], what: str) -> None:
    def after_a_pause() -> bool:
        time.sleep(0.01)
        return has_come()

    session.wait_until(after_a_pause, what)


def _wait_for_the_next_epoch(session: Session) -> None:
    before = session.text().count("\nepoch ")
    session.wait_until(lambda: session.text().count("\nepoch ") > before, "the end of another epoch")


def _expect_good_point(session: Session, start: Start) -> None:
    if not whole_points(start.run_dir):
        raise session.trouble(f"{start.run_dir}: the last good resume point is no more")


def _expect_error_at_the_end(session: Session, course: Course, row: Row, run_dir: Path) -> None:
    """Training went on to its end; the error names what was not written, and status.json does not say finished."""
    course.expect(session, [_USER_ERROR])
    text, last = session.text(), f"\nepoch {course.job.num_epochs:>3}/{course.job.num_epochs}"
    if last not in text:
        raise session.trouble("training did not go on to its end")
    if _NOT_WRITTEN not in text:
        raise session.trouble("expected a warning when it was not written for the first time")
    errors = [line for line in text.splitlines() if line.startswith("error:")]
    if not any(str(run_dir) in line for line in errors) or not any("resume" in line for line in errors):
        raise session.trouble(f"expected errors that name {run_dir} and its resume point")
    runs = [path.parent for path in course.runs_dir.glob("*/status.json")]
    if any(status_of(run_dir)["status"] == "finished" for run_dir in runs):
        raise Trouble("status.json says finished, though something was not written")
    row.notes += [line.replace(f"{course.runs_dir}/", "") for line in errors]
