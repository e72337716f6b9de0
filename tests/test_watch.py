"""Unit: who is to blame, told from beats and clocks, and what is said of it."""

from dataclasses import replace

import pytest
import torch

from ds_trainer.watch.beats import Beat, Kind, Left
from ds_trainer.watch.verdict_message import alone_message, headline, message
from ds_trainer.watch.verdicts import Limits, Peer, Stillness, Verdict, decide
from ds_trainer.watch.watch import is_collective_failure
from ds_trainer.watch.whereabouts import Place, Stack, stack_of

LIMITS = Limits(stall_timeout_s=120)
OWN: Stack = [("/home/me/task.py", 12, "__getitem__")]
WAITING: Stack = [("/x/ds_trainer/loop.py", 80, "train_epoch"), ("/x/torch/distributed/distributed_c10d.py", 9, "wait")]


def beat(rank: int, progress: int = 50, stack: Stack = OWN, left: Left | None = None, **changes: object) -> Beat:
    place = Place("training", epoch=2, step=31, progress=progress, is_in_stride=True)
    return Beat(rank, f"node-{rank}", 100 + rank, replace(place, **changes), stack, left)  # type: ignore[arg-type]


def peer(rank: int, silent_s: float = 0.5, closed_s: float = 0, **changes: object) -> Peer:
    return Peer(rank, beat(rank, **changes), silent_s, closed_s)  # type: ignore[arg-type]


def blamed(verdict: Verdict | None) -> tuple[str, list[int]] | None:
    return verdict and (verdict.reason, [peer.rank for peer in verdict.blamed])


# -- who is to blame ---------------------------------------------------------------------------------------------------


def test_nobody_is_to_blame_while_ranks_beat_and_move_on() -> None:
    assert decide([peer(0), peer(1), peer(2)], stalled_s=5, limits=LIMITS) is None


def test_silent_rank_is_named_after_the_timeout() -> None:
    assert decide([peer(0), peer(1, silent_s=119)], 119, LIMITS) is None
    assert blamed(decide([peer(0), peer(1, silent_s=120)], 119, LIMITS)) == ("silent", [1])


def test_silent_rank_is_not_missed_while_the_others_move_on() -> None:
    """Their collectives pass, so it lives: only its way to the master is cut."""
    assert decide([peer(0), peer(1, silent_s=500)], 0.2, LIMITS) is None
    assert decide([peer(0), peer(1, closed_s=500)], 0.2, LIMITS) is None


def test_dead_rank_is_named_within_seconds() -> None:
    assert decide([peer(0), peer(1, closed_s=2)], 4, LIMITS) is None, "it may come back over a new connection"
    assert blamed(decide([peer(0), peer(1, closed_s=3)], 4, LIMITS)) == ("gone", [1])


def test_failed_collective_makes_the_answer_urgent() -> None:
    assert LIMITS.answer_s <= 10
    assert blamed(decide([peer(0), peer(1, silent_s=4)], 0, LIMITS, is_asked=True)) == ("silent", [1])
    assert blamed(decide([peer(0), peer(1, closed_s=1)], 0, LIMITS, is_asked=True)) == ("gone", [1])
    assert decide([peer(0), peer(1, silent_s=2)], 0, LIMITS, is_asked=True) is None


def test_rank_that_has_not_come_is_named_after_the_start_timeout() -> None:
    assert decide([peer(0), Peer(1, None, silent_s=299)], 299, LIMITS) is None
    assert blamed(decide([peer(0), Peer(1, None, silent_s=300)], 300, LIMITS)) == ("absent", [1])


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([peer(0, progress=51), peer(1), peer(2)], [1, 2]),
        ([peer(0, progress=51), peer(1, progress=50, stack=WAITING), peer(2, progress=51)], [1]),
        ([peer(0, stack=WAITING), peer(1, stack=OWN), peer(2, stack=WAITING)], [1]),
        ([peer(0, stack=WAITING), peer(1, stack=WAITING)], [0, 1]),
        ([peer(0, progress=50), peer(1, progress=3, left=Left("done")), peer(2, progress=60)], [0]),
    ],
    ids=["least progress", "though it waits", "the one that does not wait", "all wait", "one has left in order"],
)
def test_of_stalled_ranks_the_last_is_named(ranks: list[Peer], expected: list[int]) -> None:
    assert decide(ranks, 119, LIMITS) is None
    assert blamed(decide(ranks, 120, LIMITS)) == ("stalled", expected)


def test_where_nobody_knows_how_long_it_takes_ranks_have_ten_minutes() -> None:
    ranks = [peer(0), peer(1, is_in_stride=False)]
    assert decide(ranks, 599, LIMITS) is None
    assert decide(ranks, 600, LIMITS) is not None
    assert decide(ranks, 899, Limits(900)) is None


def test_rank_alone_is_never_to_blame() -> None:
    assert decide([peer(0)], 1e6, LIMITS) is None
    assert decide([peer(0), peer(1, left=Left("done"), silent_s=1e6, closed_s=1e6)], 1e6, LIMITS) is None


@pytest.mark.parametrize("kind", ["error", "lost", "collective"])
def test_rank_that_left_otherwise_than_in_order_is_to_blame(kind: Kind) -> None:
    assert blamed(decide([peer(0), peer(1, left=Left(kind, "why"))], 0, LIMITS)) == (kind, [1])


def test_error_of_its_own_comes_before_what_followed_from_it() -> None:
    ranks = [
        peer(0, left=Left("collective", "RuntimeError: closed")),
        peer(1, left=Left("error", "ValueError")),
        peer(2, closed_s=9),
    ]
    assert blamed(decide(ranks, 9, LIMITS)) == ("error", [1])


def test_process_groups_outlast_the_watch() -> None:
    for timeout_s in (5, 120, 3600):
        limits = Limits(timeout_s)
        assert limits.group_timeout_s > max(limits.patience_s, limits.stall_timeout_s) + limits.answer_s


def test_beats_of_a_thousand_ranks_do_not_keep_the_master_busy() -> None:
    assert 1024 / Limits(120, num_ranks=1024).interval_s <= 101
    assert Limits(120, num_ranks=8).interval_s == 1


# -- clocks ------------------------------------------------------------------------------------------------------------


def test_stillness_counts_since_the_last_change() -> None:
    still = Stillness(most_s=1)
    for now_s, value in ((0, "a"), (0.5, "a"), (1, "a")):
        still.tick(now_s, {"x": value})
    assert still.seconds["x"] == 1
    still.tick(1.5, {"x": "b"})
    assert still.seconds["x"] == 0


def test_time_for_which_the_process_itself_slept_does_not_count() -> None:
    still = Stillness(most_s=1)
    still.tick(0, {"x": 1})
    still.tick(3600, {"x": 1})
    assert still.seconds["x"] == 1


def test_failures_of_collectives_are_told_from_others() -> None:
    with pytest.raises(ValueError, match="process group") as caught:
        torch.distributed.broadcast(torch.zeros(1), src=0)
    assert is_collective_failure(caught.value)
    assert is_collective_failure(torch.distributed.DistNetworkError("closed"))
    assert not is_collective_failure(ValueError("mine"))
    assert stack_of(caught.value)[0][2] == "test_failures_of_collectives_are_told_from_others"


# -- what is said ------------------------------------------------------------------------------------------------------


def test_message_names_rank_host_place_and_stack_and_what_to_do() -> None:
    code: Stack = [(__file__, 1, "<module>")]
    ranks = [peer(0), peer(1, silent_s=120, stack=code)]
    verdict = decide(ranks, 120, LIMITS)
    assert verdict is not None
    text = message(verdict, ranks, LIMITS)
    for part in (
        "rank 1 on node-1 (pid 101)",
        "120 s",
        "training, epoch 2, step 31",
        "test_watch.py:1",
        "Unit: who is",
    ):
        assert part in text
    assert "--resume auto" in text
    assert "--stall_timeout_s" in text


def test_message_of_a_stall_says_where_the_others_wait() -> None:
    ranks = [peer(0, progress=51, stack=WAITING), peer(1)]
    verdict = decide(ranks, 120, LIMITS)
    assert verdict is not None
    assert "rank 0 on node-0 stands in training, epoch 2, step 31, in /x/torch" in message(verdict, ranks, LIMITS)


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([peer(1, left=Left("error", "ValueError: no"))], "rank 1 on node-1 (pid 101) ended with ValueError: no"),
        ([peer(1, closed_s=9), peer(2, closed_s=9)], "ranks 1 on node-1 and 2 on node-2 are gone"),
        ([Peer(1, None, 600), Peer(2, None, 600)], "ranks 1, 2 have not come within 600 s"),
        ([Peer(3, None, 600)], "rank 3 has not come"),
        ([peer(1, left=Left("lost", "rank 2 is gone"))], "has ended: rank 2 is gone"),
    ],
)
def test_headlines(ranks: list[Peer], expected: str) -> None:
    verdict = decide([peer(0), *ranks], 600, Limits(900))
    verdict = verdict or decide([peer(0), *ranks], 600, LIMITS)
    assert verdict is not None
    assert expected in headline(verdict)


def test_rank_alone_says_where_it_waits() -> None:
    assert "no progress for 130 s in training, epoch 2, step 31" in alone_message(beat(0), 130)
