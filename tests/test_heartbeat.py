"""Unit: beats over real connections: who is heard, who is gone, and for how long."""

import contextlib
import multiprocessing
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

import pytest

from ds_trainer.watch.beats import Beat, Left, beat_of, own_beat
from ds_trainer.watch.heartbeat import Hub, Link
from ds_trainer.watch.line_messages import send
from ds_trainer.watch.lookout import Lookout
from ds_trainer.watch.verdicts import Limits
from ds_trainer.watch.whereabouts import Place

SOON = Limits(stall_timeout_s=2)


def beat(rank: int, progress: int = 50, left: Left | None = None) -> Beat:
    place = Place("training", epoch=2, step=31, progress=progress)
    return Beat(rank, f"node-{rank}", 100 + rank, place, [("/home/me/task.py", 12, "__getitem__")], left)


def within(seconds: float, is_so: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if is_so():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub(3, SOON)
    yield hub
    hub.close()


@pytest.fixture
def link(hub: Hub) -> Iterator[Link]:
    link = Link(("127.0.0.1", hub.port), hub.token, SOON)
    link.tell(beat(1), is_urgent=True)
    yield link
    link.close()


def test_a_beat_survives_its_journey() -> None:
    sent = beat(1, left=Left("error", "ValueError: ü"))
    assert beat_of(asdict(sent)) == sent
    assert own_beat().stack


def test_both_sides_hear_each_other(hub: Hub, link: Link) -> None:
    hub.tell(beat(0, progress=77))
    assert within(5, lambda: hub.heard()[0].beat == beat(1))
    assert within(5, lambda: link.heard()[0].beat == beat(0, progress=77))
    assert link.speaker == 1
    assert hub.heard()[1].beat is None, "rank 2 has not come"


def test_last_word_is_read_before_a_rank_goes(hub: Hub, link: Link) -> None:
    assert within(5, lambda: hub.heard()[0].beat is not None)
    link.last_word(beat(1, left=Left("done")), wait_s=5)
    assert hub.heard()[0].beat == beat(1, left=Left("done"))
    began = time.monotonic()
    hub.last_word(beat(0, left=Left("done")), wait_s=5)
    assert time.monotonic() - began < 1, "nobody is left to tell"


def test_last_word_of_the_master_reaches_the_others(hub: Hub, link: Link) -> None:
    assert within(5, lambda: hub.heard()[0].beat == beat(1))
    hub.last_word(beat(0, left=Left("lost", "rank 2")), wait_s=5)
    assert within(1, lambda: link.heard()[0].beat == beat(0, left=Left("lost", "rank 2")))


def test_rank_whose_connection_breaks_is_gone(hub: Hub, link: Link) -> None:
    assert within(5, lambda: hub.heard()[0].beat is not None)
    link.close()
    assert within(5, lambda: hub.heard()[0].is_closed)


def test_master_that_is_gone_is_noticed(hub: Hub, link: Link) -> None:
    assert within(5, lambda: link.heard()[0].beat is not None)
    hub.close()
    assert within(5, lambda: link.heard()[0].is_closed)


def test_rank_that_renews_its_connection_is_not_gone(hub: Hub) -> None:
    """A master that was frozen for a while hears the end of the old connection after the new one, or before."""
    with socket.create_connection(("127.0.0.1", hub.port)) as connection:
        send(connection, {"token": hub.token, "beat": asdict(beat(1))})
        send(connection, {"token": hub.token, "renews": True})
    assert within(5, lambda: hub.heard()[0].beat is not None)
    time.sleep(0.3)
    assert not hub.heard()[0].is_closed


def test_strangers_are_not_heard(hub: Hub, link: Link) -> None:
    for said in ({"token": "wrong", "beat": asdict(beat(2))}, {"beat": 1}, {"token": hub.token, "beat": {}}):
        with socket.create_connection(("127.0.0.1", hub.port)) as connection:
            send(connection, said)
            assert connection.recv(1) == b""
    assert hub.heard()[1].beat is None
    assert within(5, lambda: hub.heard()[0].beat is not None), "the hub goes on"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_worker_process_does_not_hold_the_connection_of_a_dead_rank_open(hub: Hub, link: Link) -> None:
    assert within(5, lambda: hub.heard()[0].beat is not None)
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    worker.start()
    try:
        link.close()
        assert within(5, lambda: hub.heard()[0].is_closed)
    finally:
        worker.kill()
        worker.join()


def test_end_of_a_rank_is_told_at_once_unless_it_has_said_so(hub: Hub, link: Link) -> None:
    ended: list[Beat] = []
    hub.on_close = ended.append
    assert within(5, lambda: hub.heard()[0].beat == beat(1))
    link.close()
    assert within(5, lambda: ended == [beat(1)])
    other = Link(("127.0.0.1", hub.port), hub.token, SOON)
    other.last_word(beat(2, left=Left("done")), wait_s=5)
    other.close()
    assert within(5, lambda: hub.heard()[1].is_closed)
    assert ended == [beat(1)]


def test_last_look_counts_how_long_the_others_are_still(hub: Hub, link: Link) -> None:
    lookout = Lookout(hub, SOON)
    assert within(5, lambda: hub.heard()[0].beat is not None)
    peers, _ = lookout.look(asks=False, has_joined=False)
    assert [(peer.rank, peer.beat is None) for peer in peers] == [(0, False), (1, False), (2, True)]
    time.sleep(0.1)
    peers, stalled_s = lookout.look(asks=False, has_joined=True)
    assert [peer.rank for peer in peers] == [0, 1]
    assert 0.05 < stalled_s <= SOON.interval_s


def test_rank_that_has_no_way_to_the_master_is_told_of_once(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    lookout = Lookout(hub, Limits(stall_timeout_s=0.2))
    for _ in range(30):
        lookout.look(asks=False, has_joined=True)
        time.sleep(0.02)
    assert [record.getMessage()[:19] for record in caplog.records] == ["no beat from rank 1", "no beat from rank 2"]


@pytest.mark.parametrize("line", [b"[" * 60_000, b"3", b"[]", b"{}", b'{"token": 3}', b"\xff", b"x" * 200_000])
def test_a_stranger_at_the_door_changes_nothing(hub: Hub, link: Link, line: bytes) -> None:
    """Nor ends a thread with a traceback, which pytest would tell."""
    with socket.create_connection(("127.0.0.1", hub.port)) as stranger:
        stranger.sendall(line + b"\n")
        stranger.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(100) == b"", "hung up"
    assert within(5, lambda: hub.heard()[0].beat is not None)
