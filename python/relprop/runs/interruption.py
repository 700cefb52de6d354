"""Ctrl-C and SIGTERM ask a run to stop where its state is whole, instead of anywhere."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Interruption:
    """Whether a run was ``asked`` to stop."""

    asked: bool = False


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Have the first signal only ask, with what this yields; a second one acts as always.

    Outside the main thread signals are left alone.
    """
    interruption = Interruption()
    before: dict[signal.Signals, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        interruption.asked = True
        restore()

    def restore() -> None:
        while before:
            signal.signal(*before.popitem())

    if threading.current_thread() is threading.main_thread():
        before |= {one: signal.signal(one, ask) for one in _SIGNALS}
    try:
        yield interruption
    finally:
        restore()
