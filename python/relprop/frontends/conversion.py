"""What every front end needs: free names, a way to give up on one operator, one error for all."""

from __future__ import annotations

from collections.abc import Iterable

from relprop.errors import UnsupportedOperatorError
from relprop.graph import Graph

BATCH_AXIS = "it touches the batch axis; samples must be independent"


class Unsupported(Exception):
    """Why one operator of a model cannot be represented."""


def unique(graph: Graph, name: str) -> str:
    """The name itself, or with "#2", "#3" and so on where it is taken."""
    if name not in graph.nodes:
        return name
    taken, free = 1, 2
    while f"{name}#{free}" in graph.nodes:
        taken, free = free, 2 * free
    while free - taken > 1:  # one by one, a hostile model could make this take forever
        middle = (taken + free) // 2
        if f"{name}#{middle}" in graph.nodes:
            taken = middle
        else:
            free = middle
    return f"{name}#{free}"


def refusal(problems: Iterable[str]) -> UnsupportedOperatorError:
    """The error that lists every operator that was given up on."""
    return UnsupportedOperatorError(
        "the model holds operators that relprop cannot represent:\n  " + "\n  ".join(problems)
    )
