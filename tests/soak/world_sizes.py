"""A world size that changes: the same global batch, from the step where the run was, to nearly the same end."""

import re
import signal
from random import Random

from soak.courses import CLIPS_OF_TWO_RANKS, Course, Job, Lab, pause, wait_for_points
from soak.ends import End, end_of, largest_difference
from soak.sessions import Session, Trouble
from soak.standing import status_of
from soak.stopping import check_stopped
from soak.table import Row

_LARGEST_LOSS_DIFFERENCE = 0.05


def change_world_size(lab: Lab, row: Row, random: Random, job: Job, world_sizes: tuple[int, ...]) -> str:
    """Go on with another number of ranks in each session; SIGTERM and SIGKILL end them in turn."""
    course = Course(lab, row, job, row.scenario)
    before = None
    for index, world_size in enumerate(world_sizes[:-1]):
        with course.session(world_size=world_size) as session:
            wait_for_points(session, course.wait_for_step(session), 2)
            pause(session, random.uniform(0.0, 0.5))
            if index % 2 == 0:
                session.signal(signal.SIGTERM, random.randrange(world_size))
                check_stopped(session, course, signal.SIGTERM)
        _check_batch(session, world_size, before)
        before = world_size
        row.times += 1
    with course.session(world_size=world_sizes[-1]) as session:
        course.expect(session, [0] * world_sizes[-1])
    _check_batch(session, world_sizes[-1], before)
    if status_of(course.run_dir)["status"] != "finished":
        raise Trouble(f"{course.run_dir}: status.json says {status_of(course.run_dir)}, expected finished")
    return _compare(row, end_of(course.run_dir), lab.reference(job))


def _check_batch(session: Session, world_size: int, before: int | None) -> None:
    text = session.text()
    found = re.search(r"steps an epoch of (\d+) clips", text)
    if found is None or int(found[1]) != CLIPS_OF_TWO_RANKS:
        raise session.trouble(f"expected the same global batch of {CLIPS_OF_TWO_RANKS} clips in the log")
    if before not in (None, world_size) and f"saved by {before} ranks, continued by {world_size}" not in text:
        raise session.trouble(f"expected that the log tells of {before} ranks before and {world_size} now")


def _compare(row: Row, found: End, expected: End) -> str:
    """Sums over other numbers of ranks round otherwise, and dropout differs from rank to rank: close, not equal."""
    losses = [[record["val_loss"] for record in end.records if record["kind"] == "epoch"] for end in (found, expected)]
    if len(losses[0]) != len(losses[1]):
        raise Trouble(f"{len(losses[0])} epochs recorded, expected {len(losses[1])}")
    apart = abs(losses[0][-1] - losses[1][-1])
    row.notes.append(
        f"validation loss {losses[0][-1]:.4f}, uninterrupted {losses[1][-1]:.4f}; "
        f"weights at most {largest_difference(found, expected):.2g} apart"
    )
    if apart > _LARGEST_LOSS_DIFFERENCE:
        raise Trouble(f"the last validation loss is {apart:.3f} off, expected at most {_LARGEST_LOSS_DIFFERENCE}")
    return "close"
