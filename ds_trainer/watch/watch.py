"""The watch: when a rank dies or stalls, every other ends within a bounded time and says which one it was.

Each rank exchanges beats with the master (`heartbeat.py`). A thread of its own, which never waits for the network,
looks at the clocks and decides (`verdicts.py`). It ends the process itself: the main thread may be stuck in a
collective, where no exception arrives. One rank speaks: the master, or if that is gone, the lowest of the others and
one on each host.
"""

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType

import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from ds_trainer import distributed
from ds_trainer.progress import log
from ds_trainer.watch.arrival import wait_for_all
from ds_trainer.watch.beats import Beat, Kind, Left, own_beat
from ds_trainer.watch.ending import end_later, end_process, within
from ds_trainer.watch.heartbeat import Hub, Link, meet
from ds_trainer.watch.lookout import Lookout
from ds_trainer.watch.verdict_message import alone_message, headline, message
from ds_trainer.watch.verdicts import Limits, Peer, Verdict, decide, stall_limit_s
from ds_trainer.watch.whereabouts import stack_of, stand_at, start_anew, waits_for_others

EXIT_RANK_LOST = 76  # EX_PROTOCOL of sysexits.h: the other side did not do its part
_SPEAKING_S = 10.0
_RECORDING_S = 20.0  # launchers grant 30 s from the end of the first rank to the end of the last
_FAREWELL_S = 2.0
_DEATHBED_S = 60.0


class Watch:
    """Watches over the ranks of a job from `join` to `leave`.

    Attributes:
        on_end: called with one line that says which rank it was, before this process ends because of it; from another
            thread, and for 20 s at most.
    """

    def __init__(self) -> None:
        start_anew()
        self.on_end: Callable[[str], None] = lambda reason: None
        self._post: Hub | Link | None = None
        self._limits = Limits(0.0)
        self._lookout = Lookout(None, self._limits)
        self._leaving = threading.Event()
        self._onlooker = threading.Thread(target=self._look_on, name="watch", daemon=True)
        self._has_joined = False
        self._asks = False
        self._warned_at = -1

    def join(self, stall_timeout_s: float, start_timeout_s: float = 300.0) -> None:
        """Join the process group of all ranks, watched. Collective.

        Args:
            stall_timeout_s: seconds for which a rank may be silent, or no rank may move on.
            start_timeout_s: seconds for which a rank that has started waits for the others to start.
        """
        self._limits = Limits(stall_timeout_s, distributed.world_size(), start_timeout_s)
        stand_at("joining")
        distributed.join(self._limits.group_timeout_s, start_timeout_s, self._begin)
        self._has_joined = True

    def _begin(self, store: Store) -> None:
        if distributed.world_size() > 1:
            self._post = meet(store, self._limits)
            self._post.on_close = self._warn_of_end
            is_told = threading.current_thread() is threading.main_thread()
            if is_told and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, self._on_sigterm)
        self._lookout = Lookout(self._post, self._limits)
        self._onlooker.start()
        if distributed.world_size() > 1:
            wait_for_all(store)

    # -- the main thread's part -------------------------------------------------------------------------------------

    def end_if_another_is_to_blame(self, error: BaseException) -> None:
        """If `error` says that a collective failed, find out why; returns only if no other rank is to blame."""
        if self._post is not None and is_collective_failure(error):
            self._ask()

    def _ask(self) -> None:
        """Give the other thread the time to find out who is to blame, and to end the process."""
        self._asks = True
        if self._post is not None:
            self._post.tell(own_beat(asks=True), is_urgent=True)
        time.sleep(self._limits.answer_s)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        """A launcher ends all ranks as soon as one has died: say first which one it was. Training notes signals itself.

        Without this, ranks that build their engines would end in silence when one of them is killed.
        """
        if self._asks:
            return
        if not self._leaving.is_set():
            self._ask()
            self._say_farewell(SystemExit("SIGTERM"))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    def leave(self, error: BaseException | None) -> None:
        """Leave the process group, and tell the others before: this rank ends in order, or with an error of its own."""
        deathbed = self._say_farewell(error)
        distributed.leave()
        if deathbed is not None:
            deathbed.cancel()  # whoever called may mend the error, and go on

    def _say_farewell(self, error: BaseException | None) -> threading.Timer | None:
        """The last word; after an error, what ends this process unless it leaves the process group soon."""
        self._leaving.set()
        if self._onlooker.is_alive():
            self._onlooker.join()  # it must not replace the last word, and if it is ending the process, so be it
        if self._post is None:
            return None
        left = Left("done") if error is None else Left(_kind(error), _in_a_line(error))
        stack = None if error is None else stack_of(error)
        self._post.last_word(own_beat(left, stack=stack), self._limits.farewell_s)
        self._post.close()
        if signal.getsignal(signal.SIGTERM) == self._on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if error is None:
            return None
        text = "".join(traceback.format_exception(error))
        return end_later(_DEATHBED_S, lambda: log.error(text), status=1)  # it may hang while the others are in it

    # -- the other thread's part ------------------------------------------------------------------------------------

    def _look_on(self) -> None:
        while not self._leaving.wait(self._limits.interval_s / 2):
            peers, stalled_s = self._lookout.look(self._asks, self._has_joined)
            verdict = decide(peers, stalled_s, self._limits, self._is_asked(peers))
            if verdict is not None and not (self._asks and verdict.reason == "collective"):  # its own tells as much
                self._end(verdict, peers)
            self._warn_if_alone(peers, stalled_s)

    def _is_asked(self, peers: list[Peer]) -> bool:
        return self._asks or any(peer.beat is not None and peer.beat.asks for peer in peers)

    def _warn_of_end(self, beat: Beat) -> None:
        """Name at once a rank that closed its connection: on GPUs, NCCL's own watchdog may end this process next."""
        is_mine = isinstance(self._post, Hub) or self._is_speaker()
        if is_mine and distributed.device().type == "cuda" and not self._leaving.is_set():
            log.warning(f"rank {beat.rank} on {beat.host} (pid {beat.pid}) is lost; it stood in {beat.place}")

    def _warn_if_alone(self, peers: list[Peer], stalled_s: float) -> None:
        """With nobody to wait for it, a rank that does not move on is not ended: it may yet."""
        here = [peer for peer in peers if peer.beat is not None and peer.left is None]
        if len(here) == 1 and here[0].rank == distributed.rank() and stalled_s >= stall_limit_s(here, self._limits):
            own = own_beat()
            if own.place.progress != self._warned_at:
                self._warned_at = own.place.progress
                log.warning(alone_message(own, stalled_s))

    def _end(self, verdict: Verdict, peers: list[Peer]) -> None:
        """End this process; returns only if it is leaving already."""
        if verdict.reason == "error" and self._leaving.wait(_FAREWELL_S):  # the rank with the error ends first
            return
        reason = headline(verdict)
        if self._speaks(verdict):
            within(_SPEAKING_S, lambda: log.error(f"error: {message(verdict, peers, self._limits)}"))
        if self._post is not None:
            self._post.last_word(own_beat(Left("lost", reason)), self._limits.farewell_s)
        if self._speaks(verdict):
            within(_RECORDING_S, lambda: self.on_end(reason))
        end_process(EXIT_RANK_LOST)

    def _speaks(self, verdict: Verdict) -> bool:
        if isinstance(self._post, Link):
            has_master_spoken = verdict.reason == "lost"
            return (self._is_speaker() and not has_master_spoken) or distributed.local_rank() == 0
        return True

    def _is_speaker(self) -> bool:
        return isinstance(self._post, Link) and self._post.speaker == distributed.rank()


def is_collective_failure(error: BaseException) -> bool:
    """Whether `error` was raised where ranks communicate: another rank may be its cause."""
    return isinstance(error, dist.DistError) or waits_for_others(stack_of(error))


def _kind(error: BaseException) -> Kind:
    return "collective" if is_collective_failure(error) else "error"


def _in_a_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
