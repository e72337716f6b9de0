"""Jobs of the toy task, and their course over many sessions: ended somehow, continued with the same command."""

import contextlib
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from launching import ROOT

from ds_trainer.run.resume_points import resume_points
from soak.ends import End, differences, end_of
from soak.sessions import Session, Trouble
from soak.standing import Asides, asides, last_step, status_of, step_of, whole_points
from soak.table import Row

RESUME_EVERY_STEPS = 20
CLIPS_OF_TWO_RANKS = 48  # which 1, 2 and 3 ranks can share

_TOY = (
    "--task", "toy", "--num_points", "4100", "--num_hidden", "256", "--num_arms", "7", "--plateau_patience", "1",
    "--record_every_steps", "1", "--resume_every_steps", str(RESUME_EVERY_STEPS),
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """What is trained: a name, the ranks that start it, and for how long."""

    name: str
    world_size: int
    num_epochs: int


class Start(NamedTuple):
    """Where a session began, as its log says."""

    run_dir: Path
    step: int


class Lab:
    """Where the soak works: a directory, the time it has, and the ends of uninterrupted runs.

    Args:
        deadline_s: on the monotonic clock; sooner, if the soak is to end.
    """

    def __init__(self, work_dir: Path, deadline_s: float, seed: int):
        self.dir = work_dir
        self.deadline_s = deadline_s
        self.seed = seed
        self._ends: dict[Job, Future[End]] = {}
        self._lock = threading.Lock()

    def time_left_s(self) -> float:
        """Seconds until the soak's time is up."""
        return self.deadline_s - time.monotonic()

    def command(self, job: Job, runs_dir: Path) -> list[str | Path]:
        """What each rank runs, at any number of ranks."""
        config = json.loads((ROOT / "ds_configs" / "bf16.json").read_text(encoding="utf-8"))
        if job.world_size > 1:
            config["train_micro_batch_size_per_gpu"] = CLIPS_OF_TWO_RANKS // job.world_size
        path = self.dir / f"{job.world_size}_ranks.json"
        with self._lock:
            path.write_text(json.dumps(config), encoding="utf-8")
        flags: list[str | Path] = [*_TOY, "--deepspeed_config", path, "--num_epochs", str(job.num_epochs)]
        return [sys.executable, "launch/train.py", *flags, "--runs_dir", runs_dir, "--resume", "auto"]

    def reference(self, job: Job) -> End:
        """The end of the uninterrupted run; the first who asks waits for the training."""
        with self._lock:
            is_first = job not in self._ends
            future = self._ends.setdefault(job, Future())
        if is_first:
            try:
                course = Course(self, Row(job.name, "uninterrupted"), job, f"straight {job}")
                future.set_result(end_of(course.finish()))
            except BaseException as error:
                future.set_exception(error)
        return future.result()


class Course:
    """A run over many sessions. What each repeats goes into `row`, and where it begins has to be where it must.

    Attributes:
        run_dir: the run's directory, as the last session that said so.
        start_s: how long the last session took to its first step.
        left: what the last session left half done.
    """

    def __init__(self, lab: Lab, row: Row, job: Job, name: str, runs_dir: Path | None = None):
        self.job = job
        self.row = row
        self._lab = lab
        self.dir = lab.dir / re.sub(r"\W+", "_", name)
        self.dir.mkdir(parents=True)
        self.runs_dir = self.dir / "runs" if runs_dir is None else runs_dir
        self.run_dir = Path()
        self.start_s = 6.0
        self.left: Asides = {}
        self._num_sessions = 0
        self._reached = 0
        self._met: dict[str, bool] = {}

    def note(self, moment: str, was_met: bool) -> None:
        """Note whether a moment that a session was to be ended at has come."""
        self._met[moment] = was_met or self._met.get(moment, False)

    @contextlib.contextmanager
    def session(self, *flags: str | Path, world_size: int | None = None) -> Iterator[Session]:
        """The same command once more; whatever still runs at the end is killed.

        Raises:
            Trouble: it left a traceback, or did not go on from the newest whole resume point.
        """
        before, expected_step = asides(self.runs_dir), self.newest_step()
        self._num_sessions += 1
        session = Session(
            [*self._lab.command(self.job, self.runs_dir), *flags],
            world_size or self.job.world_size,
            self.dir / f"session_{self._num_sessions}",
            self._lab.time_left_s,
        )
        try:
            yield session
        finally:
            session.kill()
        self.left = {path: stat for path, stat in asides(self.runs_dir).items() if before.get(path) != stat}
        self._check(session, expected_step)

    def _check(self, session: Session, expected_step: int) -> None:
        for rank in range(len(session.log_paths)):
            if "Traceback" in session.text(rank):
                raise session.trouble(f"rank {rank} left a traceback")
        start = start_of(session)
        if start is None:
            return
        if start.step != expected_step:
            raise session.trouble(f"went on from step {start.step}, expected {expected_step}")
        self.row.repeated.append(self._reached - start.step)
        self._reached = max(start.step, last_step(start.run_dir))
        self.run_dir = start.run_dir

    def newest_step(self) -> int:
        """The step of the newest whole resume point of the newest run that has one; 0 if there is none."""
        for run_dir in sorted(self.runs_dir.glob("*/"), reverse=True):
            points = whole_points(run_dir)
            if points:
                return step_of(points[-1])
        return 0

    def wait_for_step(self, session: Session) -> Start:
        """Wait until the session has taken a step."""
        session.wait_until(lambda: start_of(session) is not None, "the run directory in the log")
        start = start_of(session)
        assert start is not None
        session.wait_until(lambda: last_step(start.run_dir) > start.step, "a first step")
        self.start_s = time.monotonic() - session.started_s
        return start

    def finish(self) -> Path:
        """Let the run come to its end; return its directory.

        Raises:
            Trouble: it ended otherwise, or a moment that the soak aims at was never met.
        """
        missed = [moment for moment, was_met in self._met.items() if not was_met]
        if missed:
            raise Trouble(f"never met: {', '.join(missed)}; the soak waits for files that nobody writes")
        with self.session() as session:
            self.expect(session, [0] * self.job.world_size)
        status = status_of(self.run_dir)["status"]
        if status != "finished":
            raise Trouble(f"{self.run_dir}: status.json says {status}, expected finished")
        return self.run_dir

    def expect(self, session: Session, statuses: list[int]) -> None:
        """Wait for the session's end."""
        found = session.end()
        if found != statuses:
            raise session.trouble(f"ended with {found}, expected {statuses}")

    def compare(self) -> str:
        """Compare the run's end with that of the uninterrupted run; return the verdict."""
        lines = differences(end_of(self.run_dir), self._lab.reference(self.job))
        if lines:
            raise Trouble("\n".join([f"{self.run_dir} ended otherwise than the uninterrupted run:", *lines]))
        return "equal"


def start_of(session: Session) -> Start | None:
    """Where the session began; None as long as it has not said so."""
    text = session.text()
    continued = re.search(r"^continuing (.+) after epoch \d+, step (\d+)$", text, re.MULTILINE)
    if continued:
        return Start(Path(continued[1]), int(continued[2]))
    fresh = re.search(r"^run directory (.+)$", text, re.MULTILINE)
    return Start(Path(fresh[1]), 0) if fresh else None


def wait_for_points(session: Session, start: Start, number: int) -> None:
    """Wait until so many resume points have been written since."""
    target = (start.step // RESUME_EVERY_STEPS + number) * RESUME_EVERY_STEPS

    def have_come() -> bool:
        return any(step_of(point) >= target for point in resume_points(start.run_dir / "resume"))

    session.wait_until(have_come, f"{number} more resume points")


def pause(session: Session, seconds: float) -> None:
    """Let the session go on for so long, or to its end."""
    give_up_s = time.monotonic() + seconds
    session.has_come_within(lambda: time.monotonic() >= give_up_s, seconds + 1)
