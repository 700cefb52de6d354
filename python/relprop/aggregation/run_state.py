"""RunState: the state of a run that cuts images into regions in several ways at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from relprop.aggregation.aggregate import Aggregate
from relprop.aggregation.moments import Arrays, Summary
from relprop.aggregation.states import Row, State

NO_MAPS = (1, 1)
"""The canvas of the aggregates that need not keep average maps, since the first one does."""


class RunState(State):
    """One :class:`Aggregate` for each way of cutting.

    Parameters
    ----------
    classes
        The names of the classes.
    regions
        For each way of cutting, by its name, the names of its regions.
    canvas, channels, extremes
        As for :class:`Aggregate`.
    """

    kind = "run"

    def __init__(
        self,
        classes: Sequence[str],
        regions: Mapping[str, Sequence[str]],
        canvas: Sequence[int],
        channels: int = 3,
        extremes: int = 10,
    ) -> None:
        if not regions:
            raise ValueError("regions must have at least one entry.")
        super().__init__(
            classes=list(classes),
            regions={name: list(names) for name, names in regions.items()},
            canvas=list(canvas),
            channels=channels,
            extremes=extremes,
        )
        height, width = canvas
        self.aggregates: dict[str, Aggregate] = {}
        for name, names in regions.items():
            own = NO_MAPS if self.aggregates else (height, width)
            self.aggregates[name] = Aggregate(
                classes, names, own, channels=channels, extremes=extremes
            )

    @property
    def count(self) -> int:
        """The number of items."""
        return self._first.count

    def update(self, record: Any) -> None:
        """Add one item: its record for each way of cutting, by the way's name."""
        for name, aggregate in self.aggregates.items():
            aggregate.update(record[name])

    def result(self) -> dict[str, list[Row]]:
        """What :meth:`tables` returns."""
        return self.tables()

    def tables(self) -> dict[str, list[Row]]:
        """The tables of :meth:`Aggregate.tables`; ``cut`` says which way of cutting a row is of.

        Those that are the same for all ways are there once, without ``cut``.
        """
        tables: dict[str, list[Row]] = {}
        for name, aggregate in self.aggregates.items():
            for title, rows in aggregate.tables().items():
                if title in ("classes", "channels"):
                    tables.setdefault(title, rows)
                else:
                    tables.setdefault(title, []).extend({"cut": name, **row} for row in rows)
        return tables

    def average_maps(self) -> dict[str | None, Summary]:
        """The count, mean and variance of the maps, (H, W), by the class's name."""
        return self._first.average_maps()

    @property
    def _first(self) -> Aggregate:
        return next(iter(self.aggregates.values()))

    def write(self, arrays: Arrays) -> Any:
        content = {}
        for i, (name, aggregate) in enumerate(self.aggregates.items()):
            own: Arrays = {}
            content[name] = aggregate.write(own)
            arrays.update({f"{i}.{key}": array for key, array in own.items()})
        return content

    def read(self, arrays: Mapping[str, NDArray[Any]], content: Any) -> None:
        for i, (name, aggregate) in enumerate(self.aggregates.items()):
            begin = f"{i}."
            own = {key[len(begin) :]: arrays[key] for key in arrays if key.startswith(begin)}
            aggregate.read(own, content[name])

    def _join(self, other: RunState) -> None:
        for name, aggregate in self.aggregates.items():
            aggregate.merge(other.aggregates[name])
