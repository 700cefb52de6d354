"""A loaded model: the Graph, how images become its input, and what its outputs are called."""

from __future__ import annotations

import os
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

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write everything to one file that :func:`relprop.load` reads, without any framework.

        The file appears whole or not at all.

        Parameters
        ----------
        path
            A name that ends in ``.relprop``.
        overwrite
            Whether a file of that name is replaced.

        Raises
        ------
        FileExistsError
            If there is such a file already.
        OSError
            If the file cannot be written.
        ValueError
            If the name ends otherwise, or the graph holds what a file cannot, such as weights
            that are not float32.
        """
        from relprop.format import save

        save(self, path, overwrite=overwrite)

    def __repr__(self) -> str:
        known = f"preprocessing={self.preprocessing!r}, {len(self.classes)} classes"
        return f"Model({self.name!r}, {self.graph!r}, {known})"

    def check(self) -> None:
        """Raise a ValueError where preprocessing or class names do not fit the graph."""
        known = self.preprocessing
        if known is not None:
            made, taken = (len(known.mean), *known.size), [n.shape for n in self.graph.inputs]
            if taken != [made]:
                raise ValueError(
                    f"preprocessing makes one input of shape {made}, the model takes "
                    f"{' and '.join(map(str, taken))}."
                )
        shapes = [self.graph[output].shape for output in self.graph.outputs.values()]
        if self.classes and (len(self.classes),) not in shapes:
            raise ValueError(
                f"classes has {len(self.classes)} names for outputs of shape "
                f"{' and '.join(map(str, shapes))}."
            )

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
        hint = ", ".join(_close(wanted, [n for own in names for n in own]))
        raise ValueError(f"{self.name} has no class {name!r}{hint and '; close are '}{hint}.")


def _close(wanted: str, names: list[str]) -> list[str]:
    """Return names that hold the wanted text, or of which a word or the whole is like it."""
    if not wanted:
        return []
    parts = {part for name in names for part in (name, *name.split())}
    like = get_close_matches(wanted, sorted(parts), n=5)
    close = [n for n in names if wanted in n]
    close += [n for part in like for n in names if part == n or part in n.split()]
    return list(dict.fromkeys(close))[:8]
