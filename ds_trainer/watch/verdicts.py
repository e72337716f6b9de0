"""Which rank keeps the others waiting: decided from beats and clocks alone, so that it can be tested without either."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ds_trainer.watch.beats import Beat, Kind
from ds_trainer.watch.whereabouts import waits_for_others

_LEAST_PATIENCE_S = 600.0
_GONE_S = 3.0
_MOST_BEATS_A_SECOND = 100

Reason = Literal["error", "lost", "gone", "absent", "silent", "stalled", "collective"]


@dataclass(frozen=True)
class Limits:
    """How long to wait, in seconds.

    Args:
        stall_timeout_s: what the user allows.
        num_ranks: their beats must not keep the master busy.
        start_timeout_s: what the user allows between the first rank's start and the last's.
    """

    stall_timeout_s: float
    num_ranks: int = 1
    start_timeout_s: float = 300.0

    @property
    def interval_s(self) -> float:
        """Between two beats."""
        return min(max(1.0, self.num_ranks / _MOST_BEATS_A_SECOND), self.stall_timeout_s / 10)

    @property
    def reply_s(self) -> float:
        """Until a beat that was not answered is sent again, over a new connection."""
        return max(1.0, 2 * self.interval_s)

    @property
    def patience_s(self) -> float:
        """Where nobody knows how long a phase takes: ranks start, build, compile in the first step, save, draw."""
        return max(_LEAST_PATIENCE_S, self.stall_timeout_s)

    @property
    def group_timeout_s(self) -> float:
        """Of the process groups: a backstop, later than anything that is decided here, since it cannot name a rank."""
        return 2 * self.patience_s

    @property
    def farewell_s(self) -> float:
        """Until a last word has been read by every rank that is alive."""
        return 2 * self.interval_s + 0.2

    @property
    def asked_silence_s(self) -> float:
        """Once a collective has failed: a rank that is alive beats sooner than that."""
        return min(self.stall_timeout_s, max(3.0, 4 * self.interval_s))

    @property
    def answer_s(self) -> float:
        """Until it is known which rank made a collective fail, or that none did."""
        return self.asked_silence_s + _GONE_S


@dataclass(frozen=True)
class Peer:
    """What is known of a rank.

    Args:
        beat: its last; None before the first.
        silent_s: since then, or since it is waited for.
        closed_s: since its side closed the connection without a word and opened no new one; 0 while it is open. The
            system closes it when the process ends, however that ends.
    """

    rank: int
    beat: Beat | None
    silent_s: float = 0.0
    closed_s: float = 0.0

    @property
    def left(self) -> Kind | None:
        """How it left; None while it has not."""
        return None if self.beat is None or self.beat.left is None else self.beat.left.kind


@dataclass(frozen=True)
class Verdict:
    """Who is to blame.

    Args:
        reason: what they did.
        seconds: for how long, where that matters.
    """

    reason: Reason
    blamed: tuple[Peer, ...]
    seconds: float = 0.0


def decide(peers: Sequence[Peer], stalled_s: float, limits: Limits, is_asked: bool = False) -> Verdict | None:
    """The ranks that keep the others waiting; None while all is well.

    As long as the others move on, their collectives pass, and a rank that is not heard of has only lost its way to the
    master: it is missed no sooner than they have stood still, too.

    Args:
        peers: all ranks of which this one knows.
        stalled_s: for how long none of them has moved on.
        is_asked: a collective has failed somewhere.
    """
    here = [peer for peer in peers if peer.beat is not None and peer.left is None]
    silence_s = limits.asked_silence_s if is_asked else limits.stall_timeout_s
    gone_s = _GONE_S / 3 if is_asked else _GONE_S
    have_all_stopped = is_asked or stalled_s >= min(_GONE_S, limits.stall_timeout_s / 2)
    findings: dict[Reason, list[Peer]] = {
        "error": [peer for peer in peers if peer.left == "error"],
        "lost": [peer for peer in peers if peer.left == "lost"],
        "gone": [peer for peer in peers if peer.left is None and peer.closed_s >= gone_s and have_all_stopped],
        "absent": [peer for peer in peers if peer.beat is None and peer.silent_s >= limits.start_timeout_s],
        "silent": [peer for peer in here if peer.silent_s >= silence_s and have_all_stopped],
        "stalled": furthest_behind(here) if stalled_s >= stall_limit_s(here, limits) else [],
        "collective": [peer for peer in peers if peer.left == "collective"],
    }
    for reason, blamed in findings.items():
        if blamed:
            seconds = stalled_s if reason == "stalled" else max(peer.silent_s for peer in blamed)
            return Verdict(reason, tuple(blamed), seconds)
    return None


def stall_limit_s(here: Sequence[Peer], limits: Limits) -> float:
    """How long no rank may move on: the user's timeout while all are within steps, past their first; else patience."""
    is_in_stride = all(peer.beat is not None and peer.beat.place.is_in_stride for peer in here)
    return limits.stall_timeout_s if is_in_stride else limits.patience_s


def furthest_behind(here: Sequence[Peer]) -> list[Peer]:
    """The ranks with the least progress; of several, those that do not wait in a collective. None of one rank alone."""
    if len(here) < 2:
        return []
    least = min(_progress(peer) for peer in here)
    behind = [peer for peer in here if _progress(peer) == least]
    return [peer for peer in behind if peer.beat is not None and not waits_for_others(peer.beat.stack)] or behind


def _progress(peer: Peer) -> int:
    return peer.beat.place.progress if peer.beat is not None else 0


class Stillness:
    """For how long each of some values has stayed the same, by this process's own clock.

    A tick counts at most as `most_s`: a process that was itself suspended, or a whole machine, does not blame the
    others for the time it slept.
    """

    def __init__(self, most_s: float):
        self._most_s = most_s
        self._last: float | None = None
        self._values: dict[str, object] = {}
        self.seconds: dict[str, float] = {}

    def tick(self, now_s: float, values: dict[str, object]) -> None:
        """Count the time since the last tick for each value that has not changed."""
        passed_s = 0.0 if self._last is None else min(now_s - self._last, self._most_s)
        for name, value in values.items():
            is_same = name in self._values and self._values[name] == value
            self.seconds[name] = self.seconds[name] + passed_s if is_same else 0.0
        self._last, self._values = now_s, values
