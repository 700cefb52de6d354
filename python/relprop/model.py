"""A loaded model: the Graph, how images become its input, and what its outputs are called."""

from __future__ import annotations

from dataclasses import dataclass

from relprop.graph import Graph
from relprop.preprocessing import Preprocessing


@dataclass(frozen=True)
class Model:
    """What :func:`relprop.load` returns.

    ``preprocessing`` may be None where only arrays are explained; ``classes`` may be empty.
    """

    graph: Graph
    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] = ()
    name: str = "model"
