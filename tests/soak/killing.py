"""SIGKILL at any moment, at least a third of the times while something is being written."""

from collections import Counter
from random import Random

from soak import moments
from soak.courses import RESUME_EVERY_STEPS, Course, Job, Lab
from soak.sessions import Trouble
from soak.standing import part_of
from soak.table import Row

_NOTHING = "nothing"
MOST_REPEATED = 2 * RESUME_EVERY_STEPS
"""The resume point before is on disk when the next one is taken; then training goes on while that one is written."""


def kill_again_and_again(lab: Lab, row: Row, random: Random, job: Job, num_kills: int) -> str:
    """Kill all ranks at once, so many times, then let the run come to its end."""
    course = Course(lab, row, job, row.scenario)
    parts: Counter[str] = Counter()
    moments_left = _moments(num_kills, random)
    row.num_inside = 0
    while moments_left or (3 * row.num_inside <= row.times < num_kills + 8):
        part = _kill(course, moments_left.pop(0) if moments_left else moments.WRITING, random)
        parts[part] += 1
        row.times += 1
        row.num_inside += part != _NOTHING
    row.notes.append("was being written: " + ", ".join(f"{part} {number}" for part, number in parts.most_common()))
    with course.session() as session:
        moments.wait_for(moments.DRAWING, session, course, random)
    row.times += 1
    course.finish()
    verdict = course.compare()
    if 3 * row.num_inside < row.times:
        raise Trouble(f"only {row.num_inside} of {row.times} kills were inside writing, expected a third")
    if max(row.repeated) > MOST_REPEATED:
        raise Trouble(f"{max(row.repeated)} steps were repeated at once, expected {MOST_REPEATED} at the most")
    return verdict


def _moments(num_kills: int, random: Random) -> list[str]:
    """The checkpoint early, where each epoch is better than the last; the others in any order."""
    num_best = max(1, num_kills // 8)
    num_writing = num_kills // 2
    num_start = max(1, num_kills // 6)
    num_training = num_kills - num_best - num_writing - num_start
    rest = [moments.WRITING] * num_writing + [moments.START] * num_start + [moments.TRAINING] * num_training
    random.shuffle(rest)
    return [moments.BEST] * num_best + rest


def _kill(course: Course, moment: str, random: Random) -> str:
    """Kill one session; return what was being written."""
    with course.session() as session:
        moments.wait_for(moment, session, course, random)
        if not session.is_running():
            raise session.trouble(f"ended with {session.statuses()} before it could be killed: the run is too short")
        session.kill()
    return part_of(course.left) or _NOTHING
