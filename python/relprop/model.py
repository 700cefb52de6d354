"""A loaded model: the Graph, how images become its input, and what its outputs are called."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from relprop.graph import Graph
from relprop.preprocessing import Preprocessing


@dataclass(frozen=True)
class Model:
    """What :func:`relprop.load` returns.

    ``preprocessing`` may be None where only arrays are explained; ``classes`` may be empty. A
    class may have several names, separated by commas.
    """

    graph: Graph
    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] = ()
    name: str = "model"

    def class_name(self, index: int) -> str:
        """Return the first name of an output, or its number where the model has no names."""
        return self.classes[index].split(",")[0] if self.classes else str(index)

    def class_index(self, name: str) -> int:
        """Find an output by its name, whatever the case.

        Raises
        ------
        ValueError
            If no class or more than one has that name; the message lists what is close.
        """
        wanted = name.strip().lower()
        names = [[n.strip().lower() for n in text.split(",")] for text in self.classes]
        found = [i for i, own in enumerate(names) if wanted in own or wanted == ", ".join(own)]
        if len(found) == 1:
            return found[0]
        if not self.classes:
            raise ValueError(f"{self.name} has no class names: give the index instead of {name!r}.")
        if found:
            raise ValueError(
                f"{len(found)} classes are called {name!r}: give the index, one of "
                f"{', '.join(map(str, found))}."
            )
        every = [n for own in names for n in own]
        close = [n for n in every if wanted and wanted in n] + get_close_matches(wanted, every, n=5)
        hint = f"; close are {', '.join(dict.fromkeys(close[:8]))}" if close else ""
        raise ValueError(f"{self.name} has no class {name!r}{hint}.")
