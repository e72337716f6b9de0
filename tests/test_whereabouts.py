"""Unit: where a rank stands, and what its main thread does."""

import gc
import sys

from ds_trainer import distributed, loop
from ds_trainer.watch import whereabouts
from ds_trainer.watch.watch import Watch
from ds_trainer.watch.whereabouts import Place, main_stack, waits_for_others


def test_each_move_is_progress_and_keeps_what_it_does_not_say() -> None:
    here = whereabouts._Whereabouts()
    here.move("training", 2, 31)
    here.move("validating", None, None)
    assert str(here.place) == "validating, epoch 2, step 31"
    assert here.place.progress == 2
    assert str(Place("starting")) == "starting"


def test_rank_is_in_stride_from_its_second_step_on() -> None:
    here = whereabouts._Whereabouts()
    for step, expected in ((7, False), (7, False), (8, True), (9, True)):  # micro-steps of one step, after a resume
        here.move("training", 1, step)
        assert here.place.is_in_stride == expected
    here.move("saving", None, None)
    assert not here.place.is_in_stride
    for expected in (False, True):
        here.move("validating", None, None)
        assert here.place.is_in_stride == expected


def test_next_training_of_a_process_stands_nowhere_yet() -> None:
    for phase in ("training", "validating", "validating"):
        whereabouts.stand_at(phase, 50, 1200)
    Watch()
    assert str(whereabouts.place()) == "starting"
    whereabouts.stand_at("validating")
    assert not whereabouts.place().is_in_stride, "it may compile for minutes again"


def test_stack_shows_what_the_main_thread_does() -> None:
    assert main_stack()[-1][2] == "main_stack"
    assert main_stack()[-2][2] == "test_stack_shows_what_the_main_thread_does"
    assert not waits_for_others(main_stack())


def test_waiting_for_others_is_told_by_the_innermost_frame() -> None:
    own = ("/home/me/task.py", 12, "__getitem__")
    assert waits_for_others([own, ("/x/torch/distributed/distributed_c10d.py", 9, "wait")])
    assert waits_for_others([own, (distributed.__file__, 207, "cast")]), "what waits there calls no Python"
    assert not waits_for_others([(distributed.__file__, 207, "cast"), own])


def test_no_garbage_is_collected_while_frames_are_walked() -> None:
    """On CPython 3.11 that corrupts memory, should the thread whose frames they are go on meanwhile."""
    during: list[str] = []

    def note(phase: str, info: dict[str, int]) -> None:
        during.append(sys._getframe(1).f_code.co_name)

    before = gc.get_threshold()
    gc.callbacks.append(note)
    gc.set_threshold(1)  # all but each new object that may lie in a cycle, as frames do, would be collected
    try:
        main_stack()
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(note)
    assert "main_stack" not in during
    assert gc.isenabled()


def test_stack_keeps_the_innermost_frames_and_those_of_this_package() -> None:
    own = loop.__file__
    imports = ("<frozen importlib._bootstrap>", 1, "_find")
    stack = [("/x/train.py", 1, "main"), (own, 2, "train"), *[("/x/torch/y.py", n, "f") for n in range(9)], imports]
    assert whereabouts._telling(stack) == [stack[1], *stack[3:-1]]
