"""How far a run is: items, their rate, the time that is left, how many were rejected."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any


class RunProgress:
    """A line on the terminal; nothing where ``shown`` is false.

    Parameters
    ----------
    total
        The number of items, None where it is not known.
    done, rejected
        What an earlier part of the run did.
    shown
        Whether there is a line.
    """

    def __init__(self, total: int | None, done: int, rejected: int, shown: bool) -> None:
        self._rejected = rejected
        self._before = done
        self._done = done
        self._bar: Any = None
        if shown:
            self._bar = _bar()
            self._task = self._bar.add_task(
                "", total=total, completed=done, rejected=rejected, rate=""
            )

    def advance(self, items: int, rejected: int) -> None:
        """Count items, and those of them that were rejected."""
        self._done += items
        self._rejected += rejected
        self.within(0.0)

    def within(self, share: float) -> None:
        """Say which share of the next item is done, where items take long."""
        if self._bar is None:
            return
        self._bar.update(self._task, completed=self._done + share)
        rate = (self._done + share - self._before) / max(self._bar.tasks[0].elapsed or 0.0, 1e-3)
        self._bar.update(self._task, rejected=self._rejected, rate=_said(rate))

    def live(self) -> AbstractContextManager[object]:
        """Return a context in which the line is on the terminal."""
        return nullcontext() if self._bar is None else self._bar


def _said(rate: float) -> str:
    return f"{rate:.1f} a second" if rate >= 1 or rate == 0 else f"{1 / rate:.1f} seconds each"


def _bar() -> Any:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from relprop.cli_summary import plain_console

    return Progress(
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[rejected]} rejected"),
        console=plain_console(stderr=True),
        transient=True,
    )
