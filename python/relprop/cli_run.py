"""What commands that run over a dataset share: their exit codes, and how they go on."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer
from rich.console import Console

SOME_REJECTED, INTERRUPTED = 1, 130
"""Exit codes."""


@contextmanager
def resumable(command: Sequence[str], console: Console) -> Iterator[None]:
    """Where a run that began is interrupted, say how far it is and what goes on, and exit."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        if not str(stopped):  # before the run, or by a second signal: nobody knows how far it is
            raise
        again = shlex.join(word for word in command if word != "--force")
        console.print(f"{stopped}\n  {again}", soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
