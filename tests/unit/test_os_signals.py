"""Signals inside `Uninterrupted` wait, and then do what they would have done."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from jadevectordb.adapters.os_signals import Uninterrupted


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """A program that a shell started in the background ignores Ctrl-C, and tests may be run by one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_waits_for_the_end_of_the_block() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt):
        with Uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            for step in range(1000):
                steps.append(step)
        steps.append(-1)
    assert steps == list(range(1000))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_own_handler_is_called_once_for_each_signal_and_stays() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        with Uninterrupted(), Uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            assert seen == []
        assert seen == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)
        assert seen == [signal.SIGTERM, signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_every_handler_is_restored_although_one_raises() -> None:
    def refuse(number: int, _: object) -> None:
        raise RuntimeError(number)

    before = signal.signal(signal.SIGTERM, refuse)
    try:
        with pytest.raises((RuntimeError, KeyboardInterrupt)), Uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGTERM) is refuse
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_error_in_the_block_passes() -> None:
    with pytest.raises(ValueError, match="as it is"), Uninterrupted():
        raise ValueError("as it is")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_are_left_alone() -> None:
    done: list[bool] = []

    def work() -> None:
        with Uninterrupted():
            done.append(signal.getsignal(signal.SIGINT) is signal.default_int_handler)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
