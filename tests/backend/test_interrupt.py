"""Ctrl-C while something is computed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from ms_medqa.backend.interrupt import check_interrupt, hold_interrupt


@pytest.fixture(autouse=True)
def _interrupt_counts() -> Iterator[None]:
    """Also where the tests run in the background of a shell, which lets its commands ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press() -> None:
    """Ctrl-C, for this thread alone: the tests' own process has others."""
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def test_it_waits_for_the_check() -> None:
    passed = []
    with hold_interrupt():
        check_interrupt()
        with hold_interrupt():
            press()
            passed.append(1)
        passed.append(2)
        with pytest.raises(KeyboardInterrupt):
            check_interrupt()
        check_interrupt()
    assert passed == [1, 2]


def test_it_comes_at_the_end_at_the_latest() -> None:
    passed = []

    def work() -> None:
        with hold_interrupt():
            press()
            passed.append(1)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert passed == [1]


def test_afterwards_pythons_handler_is_back_in_place() -> None:
    before = signal.getsignal(signal.SIGINT)
    with hold_interrupt():
        # As MindSpore does, though from C.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_other_threads_are_left_alone() -> None:
    seen = []

    def elsewhere() -> None:
        with hold_interrupt():
            seen.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))
            check_interrupt()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [False]
