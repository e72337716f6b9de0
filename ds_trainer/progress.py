"""What a person sees while a run goes on: a bar in a terminal, plain lines in a log file; from the master rank only."""

import contextlib
import errno
import io
import logging
import os
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

from ds_trainer.distributed import is_master
from ds_trainer.errors import harmless

T = TypeVar("T")
log = logging.getLogger("ds_trainer")

_bars: list[str] = []
"""The titles of the bars that are shown."""


class _LogHandler(logging.StreamHandler[TextIO]):
    """Writes lines for as long as somebody reads them: a run outlives the pipe or terminal that it was started in."""

    lost: OSError | None = None
    """Why a line did not get where it could still be read, such as onto a full disk: the first such error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, above the bar if there is one."""
        with tqdm.external_write_mode(self.stream) if _bars else contextlib.nullcontext():
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Called where a line could not be written; logging would print pages for each."""
        error = sys.exception()
        if isinstance(error, OSError):
            self._lose(error)
        else:
            super().handleError(record)

    def end(self) -> None:
        """Write what still waits, or give it up, so that the interpreter ends without an error of its own."""
        try:
            self.stream.flush()
        except OSError as error:
            self._lose(error)
            self._to_nowhere()

    def _lose(self, error: OSError) -> None:
        if error.errno == errno.EPIPE or (error.errno == errno.EIO and not self._is_file()):
            self._to_nowhere()  # nobody will ever read it
        else:
            self.lost = self.lost or error

    def _is_file(self) -> bool:
        return stat.S_ISREG(os.fstat(self.stream.fileno()).st_mode)

    def _to_nowhere(self) -> None:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self.stream.fileno())


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return harmless(super().format(record))


def start_log(is_verbose: bool = False) -> None:
    """Send the package's log to standard output; other ranks than the master keep quiet below warnings."""
    _open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name need not be UTF-8
    handler = _LogHandler(sys.stdout)
    handler.setFormatter(_Formatter("%(message)s"))
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(logging.DEBUG if is_verbose else logging.INFO if is_master() else logging.WARNING)


def _open_closed_streams() -> None:
    """Where standard output or error was closed (`2>&-`), have the other, or nobody, get what is written there.

    Python has None in its place, and whatever is opened next would get its number, and what libraries write to it.
    """
    if sys.stdout is None or sys.stderr is None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        sys.stderr = sys.stderr or os.fdopen(nowhere, "w")
        sys.stdout = sys.stdout or sys.stderr


def end_log() -> list[str]:
    """Write what still waits of the log; return what is wrong where some of it was lost, but not if its reader left."""
    problems = []
    for handler in log.handlers:
        if isinstance(handler, _LogHandler):
            handler.end()
            if handler.lost is not None:
                problems.append(
                    f"standard output: cannot be written ({handler.lost.strerror}), and is cut short; make room there, "
                    "or choose another place, and run the command again"
                )
    return problems


def tell_problems(problems: Iterable[str]) -> None:
    """Tell in the log what the user can mend, a line each."""
    for problem in problems:
        log.error(f"error: {problem}")


def complain(problems: Iterable[str], kind: str = "error") -> None:
    """The same on standard error, where standard output is read by a program."""
    for problem in problems:
        print(f"{kind}: {harmless(problem)}", file=sys.stderr)


def with_bar(items: Iterable[T], total: int, title: str) -> Iterator[T]:
    """Pass `items` on, showing a bar if this is the master rank in a terminal."""
    if not (is_master() and sys.stderr.isatty()):
        yield from items
        return
    _bars.append(title)
    try:
        yield from tqdm(items, total=total, desc=title, leave=False, dynamic_ncols=True)
    finally:
        _bars.remove(title)


def clock(seconds: float) -> str:
    """`seconds` as a person reads them: 42 s, 3:05 min, 2:10 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole // 60 % 60:02d} h"


def epoch_line(record: Mapping[str, Any], named: Mapping[str, float], num_epochs: int, seconds_left: float) -> str:
    """An epoch's line in the log.

    Args:
        record: of the epoch, as it stands in metrics.jsonl.
        named: the metrics to show beside the losses.
    """
    train = "-" if record["train_loss"] is None else f"{record['train_loss']:.4f}"
    metrics = "".join(f"  {name} {value:.3f}" for name, value in named.items())
    used = f"  {record['flops_utilisation']:.0%} MFU".replace("%", " %") if "flops_utilisation" in record else ""
    num_skipped = record["skipped_steps"]
    skipped = f"  {num_skipped} {'step' if num_skipped == 1 else 'steps'} skipped" if num_skipped else ""
    return (
        f"epoch {record['epoch'] + 1:>3}/{num_epochs}  train {train}  val {record['val_loss']:.4f}{metrics}"
        f"  lr {record['learning_rate']:.1e}  {record['examples_per_second']:.0f} clips/s{used}"
        f"  {clock(seconds_left)} left{skipped}"
    )


class RemainingTime:
    """Estimates the time until the last epoch ends from the epochs of this session."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._num_done = 0

    def after_epoch(self, num_left: int) -> float:
        """Seconds until `num_left` further epochs are done, one more being done now."""
        self._num_done += 1
        return (time.monotonic() - self._started) / self._num_done * num_left
