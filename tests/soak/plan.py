"""Which scenarios there are, and how they are run: two at a time, within the time that there is."""

import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from random import Random
from signal import SIGINT, SIGTERM, SIGUSR1

from soak import damaging, killing, starving, stopping
from soak.courses import Job, Lab
from soak.disk import NotPossible
from soak.mixing import kill_damage_and_stop
from soak.moments import BEST, START, TRAINING, WRITING
from soak.sessions import OutOfTime, Trouble
from soak.stalling import freeze_each_rank
from soak.table import Row
from soak.world_sizes import change_world_size

_NUM_AT_ONCE = 2

Act = Callable[[Lab, Row, Random], str]


@dataclass(frozen=True)
class Scenario:
    """Something done to a run.

    Args:
        act: does it and returns the verdict; raises `Trouble` where that is bad.
        needs_s: it is not begun if less time is left.
    """

    name: str
    what: str
    act: Act
    needs_s: float = 60.0


def _uninterrupted(lab: Lab, row: Row, random: Random, job: Job) -> str:
    lab.reference(job)
    return "reference"


def full_plan() -> list[Scenario]:
    """What `make soak` does."""
    one, two, brief = Job("1 rank", 1, 18), Job("2 ranks", 2, 14), Job("brief", 1, 6)
    signals = ((SIGTERM, START), (SIGTERM, TRAINING), (SIGUSR1, TRAINING), (SIGTERM, WRITING), (SIGINT, TRAINING))
    signals_of_two = ((SIGTERM, TRAINING), (SIGTERM, WRITING), (SIGTERM, BEST))
    damages = (
        damaging.flip_bit_of_state,
        damaging.truncate_state,
        damaging.flip_bit_of_manifest,
        damaging.delete_point,
        damaging.truncate_manifest,
        damaging.delete_state,
        damaging.delete_manifest,
    )
    return [
        Scenario("reference 1", "1 rank, uninterrupted", partial(_uninterrupted, job=one)),
        Scenario("reference 2", "2 ranks, uninterrupted", partial(_uninterrupted, job=two)),
        Scenario("kill 1", "SIGKILL", partial(killing.kill_again_and_again, job=one, num_kills=15), 200),
        Scenario("kill 2", "SIGKILL", partial(killing.kill_again_and_again, job=two, num_kills=8), 200),
        Scenario(
            "stop 1", "SIGTERM, SIGUSR1, SIGINT", partial(stopping.stop_again_and_again, job=one, signals=signals)
        ),
        Scenario("stop 2", "SIGTERM", partial(stopping.stop_again_and_again, job=two, signals=signals_of_two)),
        Scenario("interrupt twice", "SIGINT, SIGINT", partial(stopping.interrupt_twice, job=brief), 30),
        Scenario(
            "world sizes", "2 -> 1 -> 3 -> 2 ranks", partial(change_world_size, job=two, world_sizes=(2, 1, 3, 2))
        ),
        Scenario("damage", "bits, cuts, deletions", partial(damaging.damage_again_and_again, job=one, damages=damages)),
        Scenario("full disk", "full, killed, full, freed", partial(starving.full_for_a_while, job=brief)),
        Scenario("full to end", "full, room at the next start", partial(starving.full_to_the_end, job=brief)),
        Scenario("read-only", "read-only to the end", partial(starving.read_only_to_the_end, job=brief)),
        Scenario("gone", "run directory vanishes", partial(starving.gone_to_the_end, job=brief)),
        Scenario("stall", "SIGSTOP, one rank of two", partial(freeze_each_rank, job=two)),
    ]


def short_plan() -> list[Scenario]:
    """What CI does in less than a minute: each start takes ten seconds of one core."""
    brief = Job("brief", 1, 5)
    return [
        Scenario("reference", "uninterrupted", partial(_uninterrupted, job=brief), 0),
        Scenario("mixed", "SIGKILL, a flipped bit, SIGTERM", partial(kill_damage_and_stop, job=brief), 0),
    ]


def run_plan(scenarios: Sequence[Scenario], lab: Lab, tell: Callable[[str], None]) -> list[Row]:
    """Run the scenarios, in this order as far as two at once have one; `tell` hears of each when it is over."""
    with ThreadPoolExecutor(max_workers=_NUM_AT_ONCE) as lanes:
        try:
            return list(lanes.map(lambda scenario: _run(scenario, lab, tell), scenarios))
        except BaseException:  # an interrupt: the lanes end their jobs before this is left
            lab.deadline_s = 0.0
            raise


def _run(scenario: Scenario, lab: Lab, tell: Callable[[str], None]) -> Row:
    row = Row(scenario.name, scenario.what)
    began_s = time.monotonic()
    left_s = lab.time_left_s()
    if left_s < scenario.needs_s:
        row.verdict = f"not run: {left_s:.0f} s left of the {scenario.needs_s:.0f} s that it needs"
        tell(f"{row.scenario}: {row.verdict}")
        return row
    try:
        row.verdict, row.is_bad = scenario.act(lab, row, Random(f"{lab.seed} {scenario.name}")), False
        tell(f"{row.scenario}: {row.verdict}")
    except NotPossible as error:
        row.verdict, row.is_bad = "skipped", False
        row.notes.append(str(error))
    except OutOfTime:
        row.verdict = "out of time"
    except Trouble as error:
        row.verdict = str(error).splitlines()[0]
        tell(f"{row.scenario}: BAD\n{error}")
    except Exception as error:  # of the soak itself, or of a file that is not what it must be
        row.verdict = f"{type(error).__name__}: {error}".splitlines()[0]
        tell(f"{row.scenario}: BAD\n{traceback.format_exc()}")
    row.seconds = time.monotonic() - began_s
    return row
