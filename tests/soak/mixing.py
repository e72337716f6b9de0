"""All of it in one short course: killed inside writing, damaged, stopped."""

import signal
from random import Random

from soak import moments
from soak.courses import Course, Job, Lab, wait_for_points
from soak.damaging import KEEP_THREE, check_gone_back, damage_newest, flip_bit_of_state
from soak.killing import MOST_REPEATED
from soak.sessions import Trouble
from soak.standing import part_of
from soak.stopping import check_stopped
from soak.table import Row


def kill_damage_and_stop(lab: Lab, row: Row, random: Random, job: Job) -> str:
    """Three sessions; the first dies while a resume point is written, the second goes back one and is stopped."""
    course = Course(lab, row, job, row.scenario)
    with course.session(*KEEP_THREE) as session:
        wait_for_points(session, course.wait_for_step(session), 2)
        moments.wait_for(moments.WRITING, session, course, random)
    part = part_of(course.left)
    row.num_inside = int(part is not None)
    row.notes.append(f"was being written: {part or 'nothing'}")
    damaged = damage_newest(course, flip_bit_of_state, random)
    with course.session(*KEEP_THREE) as session:
        moments.wait_for(moments.TRAINING, session, course, random)
        session.signal(signal.SIGTERM)
        check_stopped(session, course, signal.SIGTERM)
    check_gone_back(session, damaged)
    course.finish()
    row.times = 3
    if row.repeated[-1] or max(row.repeated) > 2 * MOST_REPEATED:
        raise Trouble(f"steps were repeated: {row.repeated}, expected none after SIGTERM, few after damage")
    return course.compare()
