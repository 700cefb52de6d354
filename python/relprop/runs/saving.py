"""Checkpoints by time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from relprop.runs.checkpoint import Checkpoint


class Saving:
    """Writes the checkpoint that ``make`` returns, when it is due.

    Parameters
    ----------
    path
        The checkpoint's file.
    make
        Says what is known now.
    seconds
        How old the last one may become.
    """

    def __init__(self, path: Path, make: Callable[[], Checkpoint], seconds: float) -> None:
        self._path = path
        self._make = make
        self._seconds = seconds
        self._last = time.monotonic()

    def save_when_due(self) -> None:
        """Write a checkpoint where the last one is old."""
        if time.monotonic() - self._last >= self._seconds:
            self.save()

    def save(self) -> None:
        """Write a checkpoint."""
        self._make().write(self._path)
        self._last = time.monotonic()
