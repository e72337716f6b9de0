"""Unit: what asks a process to stop, noted and handed back."""

import signal
import sys
import time

import pytest

from ds_trainer.stopping import early_requests, hold_sigusr1_back, stop_requests


def test_signal_is_noted_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as wants_stop:
        assert wants_stop() is None
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
        assert wants_stop() == "SIGUSR1", "the first one"
    assert signal.getsignal(signal.SIGTERM) is before


def test_second_sigint_is_not_caught() -> None:
    with stop_requests() as wants_stop:
        signal.raise_signal(signal.SIGINT)
        assert wants_stop() == "SIGINT"
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


def test_second_sigint_in_a_notebook_interrupts_it_and_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # as a notebook has it; a background job ignores it
    try:
        with stop_requests() as wants_stop:
            signal.raise_signal(signal.SIGINT)
            assert wants_stop() == "SIGINT"
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_sigusr1_before_training_is_noted_and_the_other_signals_are_left_alone() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    hold_sigusr1_back()
    signal.raise_signal(signal.SIGUSR1)
    with early_requests() as asked_early:
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before[:2]
        assert asked_early() == "SIGUSR1"
        with stop_requests(asked_early=asked_early) as wants_stop:
            assert wants_stop() == "SIGUSR1"
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before


def test_time_limit_is_in_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    with stop_requests(stop_after_minutes=2) as wants_stop:
        now_s += 119
        assert wants_stop() is None
        now_s += 1
        assert wants_stop() == "the time limit of 2 minutes"
