"""Signals that ask a run to stop."""

from __future__ import annotations

import signal
import threading

import pytest

from relprop.runs.interruption import interruptible


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_acts(number: signal.Signals) -> None:
    def act(*arguments: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, act)
    try:
        with interruptible() as interruption:
            assert not interruption.asked
            signal.raise_signal(number)
            assert interruption.asked
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        assert signal.getsignal(number) is act
        with interruptible():
            pass
        assert signal.getsignal(number) is act
    finally:
        signal.signal(number, before)


def test_other_threads_leave_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def run() -> None:
        with interruptible():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]
