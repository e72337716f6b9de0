"""What a person reads when the run ends because of another rank: which one, where, how it stood, what to do."""

import linecache
import os
from collections.abc import Sequence
from pathlib import Path

from ds_trainer.rank_variables import hosts_of_ranks
from ds_trainer.watch.beats import Beat
from ds_trainer.watch.verdicts import Limits, Peer, Verdict
from ds_trainer.watch.whereabouts import Stack

_MOST_SHOWN = 4


def headline(verdict: Verdict) -> str:
    """One line: who it was, where, and what is known."""
    who, is_one = _who(verdict.blamed), len(verdict.blamed) == 1
    has, word = "has" if is_one else "have", _last_word(verdict.blamed[0])
    texts = {
        "error": f"ended with {word}",
        "lost": f"{has} ended: {word}",
        "gone": f"{'is' if is_one else 'are'} gone: killed or crashed; out of memory, maybe: see dmesg there",
        "absent": f"{has} not come within {verdict.seconds:.0f} s",
        "silent": f"{has} not been heard of for {verdict.seconds:.0f} s: frozen, or the host or the network is down",
        "stalled": f"{has} not moved on for {verdict.seconds:.0f} s" + ("" if is_one else ": they wait for each other"),
        "collective": f"ended with {word}",
    }
    return f"{who} {texts[verdict.reason]}"


def message(verdict: Verdict, peers: Sequence[Peer], limits: Limits) -> str:
    """The headline, where the ranks stood, and what to do. Reads source files."""
    lines = [headline(verdict)]
    if verdict.reason == "lost":  # the rank that said so has told the rest
        return lines[0]
    for peer in verdict.blamed[:_MOST_SHOWN]:
        if peer.beat is not None:
            lines += [f"  rank {peer.rank} stood in {peer.beat.place}:", *_shown(peer.beat.stack)]
    if verdict.reason in ("stalled", "absent"):
        blamed = [peer.rank for peer in verdict.blamed]
        beats = [peer.beat for peer in peers if peer.rank not in blamed and peer.beat is not None]
        lines += [_briefly(beat) for beat in beats[:_MOST_SHOWN]]
    lines.append(
        "  the other ranks cannot go on, so the run ends; the same command with --resume auto continues it from its "
        "last resume point"
    )
    if verdict.reason in ("silent", "stalled"):
        lines.append(f"  if it was only slow: --stall_timeout_s allows {limits.stall_timeout_s:g} s, allow more")
    return "\n".join(lines)


def alone_message(beat: Beat, stalled_s: float) -> str:
    """What a rank says that does not move on, with no other to wait for it."""
    lines = [f"no progress for {stalled_s:.0f} s in {beat.place}; still waiting", *_shown(beat.stack)]
    return "\n".join(lines)


def _who(peers: Sequence[Peer]) -> str:
    """`rank 1 on node-b (pid 4242)`, or `ranks 4, 5 on node-b and 6 on node-c`."""
    if len(peers) == 1:
        beat = peers[0].beat
        pid = f" (pid {beat.pid})" if beat is not None else ""
        return f"rank {peers[0].rank}{_place_of(peers[0])}{pid}"
    hosts: dict[str, list[str]] = {}
    for peer in peers:
        hosts.setdefault(_place_of(peer), []).append(str(peer.rank))
    return "ranks " + " and ".join(", ".join(ranks) + host for host, ranks in hosts.items())


def _place_of(peer: Peer) -> str:
    if peer.beat is not None:
        return f" on {peer.beat.host}"
    hosts = dict(enumerate(hosts_of_ranks()))
    return f" on {hosts[peer.rank]}" if peer.rank in hosts else ""


def _last_word(peer: Peer) -> str:
    return peer.beat.left.reason if peer.beat is not None and peer.beat.left is not None else ""


def _briefly(beat: Beat) -> str:
    where = f", in {_frame(*beat.stack[-1])}" if beat.stack else ""
    return f"  rank {beat.rank} on {beat.host} stands in {beat.place}{where}"


def _shown(stack: Stack) -> list[str]:
    lines = []
    for file, line, function in stack:
        code = linecache.getline(file, line).strip()  # of this host: what was sent is the line's number
        lines.append(f"    {_frame(file, line, function)}" + (f": {code}" if code else ""))
    return lines


def _frame(file: str, line: int, function: str) -> str:
    short = file.partition("site-packages" + os.sep)[2]
    if not short:
        path = Path(file)
        short = str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
    return f"{short}:{line} {function}"
