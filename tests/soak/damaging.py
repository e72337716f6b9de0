"""Damage to the newest resume point: refused by name, training goes back to the one before, to the same end."""

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from soak.courses import Course, Job, Lab, pause, start_of, wait_for_points
from soak.sessions import Session, Trouble
from soak.standing import is_whole, step_of, whole_points
from soak.table import Row

Damage = Callable[[Path, Random], str]
KEEP_THREE = ("--keep_resume_points", "3")
_USER_ERROR = 2


def flip_bit_of_state(point: Path, random: Random) -> str:
    """One bit of the tensors and what is around them."""
    return _flip_bit(point / "state.pt", random)


def flip_bit_of_manifest(point: Path, random: Random) -> str:
    """One bit of the list of sizes and checksums."""
    return _flip_bit(point / "manifest.json", random)


def truncate_state(point: Path, random: Random) -> str:
    """Cut off at a random place."""
    return _truncate(point / "state.pt", random)


def truncate_manifest(point: Path, random: Random) -> str:
    """Cut off at a random place."""
    return _truncate(point / "manifest.json", random)


def delete_state(point: Path, random: Random) -> str:
    """Only the manifest is left."""
    (point / "state.pt").unlink()
    return "state.pt deleted"


def delete_manifest(point: Path, random: Random) -> str:
    """Only the state is left."""
    (point / "manifest.json").unlink()
    return "manifest.json deleted"


def delete_point(point: Path, random: Random) -> str:
    """Nothing is left that could be refused."""
    shutil.rmtree(point)
    return "directory deleted"


def _flip_bit(path: Path, random: Random) -> str:
    content = bytearray(path.read_bytes())
    bit = random.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    return f"bit {bit} of {path.name} flipped"


def _truncate(path: Path, random: Random) -> str:
    size = random.randrange(path.stat().st_size)
    with path.open("r+b") as file:
        file.truncate(size)
    return f"{path.name} cut to {size} bytes"


class Damaged(NamedTuple):
    """What was done to the newest resume point, and which one the run has to go on from."""

    what: str
    point: Path
    is_refused: bool
    good: Path


def damage_newest(course: Course, damage: Damage, random: Random) -> Damaged:
    """Damage the newest resume point that is whole; the one before has to be, too."""
    before, newest = whole_points(course.run_dir)[-2:]
    what = damage(newest, random)
    is_refused = newest.exists() and not is_whole(newest)
    return Damaged(what, newest, is_refused, before if is_refused or not newest.exists() else newest)


def check_gone_back(session: Session, damaged: Damaged) -> None:
    """The session has to have refused the damaged point by name, and gone on from the good one."""
    start = start_of(session)
    if start is None or start.step != step_of(damaged.good):
        raise session.trouble(f"{damaged.what}: expected to go on from {damaged.good.name}")
    told = [line for line in session.text().splitlines() if line.startswith(f"refused {damaged.point}:")]
    if damaged.is_refused and not any(f"going back to {damaged.good.name}" in line for line in told):
        raise session.trouble(f"{damaged.what}: expected the log to refuse {damaged.point}")


def damage_again_and_again(lab: Lab, row: Row, random: Random, job: Job, damages: tuple[Damage, ...]) -> str:
    """Damage the newest point before each continuation, then all of them, in a copy."""
    course = Course(lab, row, job, row.scenario)
    _kill_after_points(course, random)
    for damage in damages:
        damaged = damage_newest(course, damage, random)
        row.times += 1
        check_gone_back(_kill_after_points(course, random), damaged)
    _damage_all(lab, row, random, course)
    course.finish()
    return course.compare()


def _kill_after_points(course: Course, random: Random) -> Session:
    with course.session(*KEEP_THREE) as session:
        wait_for_points(session, course.wait_for_step(session), 4)
        pause(session, random.uniform(0.0, 0.2))
    return session


def _damage_all(lab: Lab, row: Row, random: Random, course: Course) -> None:
    """With nothing left to continue from, the job says so and does not start afresh."""
    runs_dir = course.dir / "all_damaged"
    shutil.copytree(course.runs_dir, runs_dir)
    ruined = Course(lab, Row(row.scenario, ""), course.job, f"{row.scenario} all", runs_dir)
    points = whole_points(max(runs_dir.glob("*/")))
    for point in points:
        flip_bit_of_state(point, random)
    with ruined.session(*KEEP_THREE) as session:
        ruined.expect(session, [_USER_ERROR])
    missing = [point.name for point in points if f"error: {point}: state.pt is damaged" not in session.text()]
    if missing or not points:
        raise session.trouble(f"expected an error for each of {[point.name for point in points]}, none of {missing}")
    if len(list(runs_dir.glob("*/"))) != len(list(course.runs_dir.glob("*/"))):
        raise Trouble("with all resume points damaged a new run was begun, expected none")
    row.times += len(points)
    errors = [line for line in session.text().splitlines() if line.startswith("error:")]
    row.notes.append(f"all damaged: status {_USER_ERROR}: {errors[-1].replace(str(runs_dir) + '/', '')}")
