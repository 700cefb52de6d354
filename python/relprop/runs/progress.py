"""How far a run is: items, their rate, the time that is left, how many were rejected."""

from __future__ import annotations

from types import TracebackType
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
        self._bar: Any = None
        if shown:
            self._bar = _bar()
            self._task = self._bar.add_task(
                "", total=total, completed=done, rejected=rejected, rate=""
            )

    def advance(self, items: int, rejected: int) -> None:
        """Count items, and those of them that were rejected."""
        self._rejected += rejected
        if self._bar is None:
            return
        self._bar.advance(self._task, items)
        task = self._bar.tasks[0]
        rate = (task.completed - self._before) / max(task.elapsed or 0.0, 1e-3)
        self._bar.update(self._task, rejected=self._rejected, rate=f"{rate:.1f} a second")

    def __enter__(self) -> RunProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


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
