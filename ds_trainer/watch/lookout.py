"""What this rank knows of the others at a glance, and for how long each has been still, by its own clock."""

import time

from ds_trainer.distributed import is_master
from ds_trainer.progress import log
from ds_trainer.watch.beats import Beat, own_beat
from ds_trainer.watch.heartbeat import Heard, Hub, Link
from ds_trainer.watch.verdicts import Limits, Peer, Stillness


class Lookout:
    """Looks from one rank: the master sees all, another rank sees the master.

    Args:
        post: where beats come and go; None for a rank that is alone.
    """

    def __init__(self, post: Hub | Link | None, limits: Limits):
        self._post = post
        self._limits = limits
        self._still = Stillness(most_s=limits.interval_s)
        self._unheard: set[int] = set()

    def look(self, asks: bool, has_joined: bool) -> tuple[list[Peer], float]:
        """Tell this rank's beat; return what is known of the ranks, and for how long none has moved on.

        Args:
            asks: for the beat: a collective has failed here.
            has_joined: all ranks have come, so one that was never heard of has only no way to the master.
        """
        own = own_beat(asks=asks)
        heard = []
        if self._post is not None:
            self._post.tell(own)
            heard = self._post.heard()
        self._still.tick(time.monotonic(), _signs(own, heard))
        peers = [self._peer(each) for each in heard]
        if has_joined:
            self._warn_of_unheard(peers)
            peers = [peer for peer in peers if peer.beat is not None]
        if is_master():
            peers.insert(0, Peer(own.rank, own))
        return peers, self._still.seconds["progress"]

    def _peer(self, heard: Heard) -> Peer:
        still = self._still.seconds
        closed_s = still[f"closed {heard.rank}"] if heard.is_closed else 0.0
        return Peer(heard.rank, heard.beat, still[f"beats {heard.rank}"], closed_s)

    def _warn_of_unheard(self, peers: list[Peer]) -> None:
        for peer in peers:
            if peer.beat is None and peer.silent_s >= self._limits.stall_timeout_s and peer.rank not in self._unheard:
                self._unheard.add(peer.rank)
                log.warning(
                    f"no beat from rank {peer.rank}: if it stalls, nobody will say so; are connections from its host "
                    "to that of rank 0 let through, on any port?"
                )


def _signs(own: Beat, heard: list[Heard]) -> dict[str, object]:
    """What changes while all is well."""
    beats = [own, *(each.beat for each in heard if each.beat is not None)]
    signs: dict[str, object] = {"progress": sum(beat.place.progress for beat in beats)}
    for each in heard:
        signs |= {f"beats {each.rank}": each.num_beats, f"closed {each.rank}": each.is_closed}
    return signs
