"""Aggregate: all states of a run together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from relprop.aggregation.channel_state import ChannelState
from relprop.aggregation.conservation_state import ConservationState
from relprop.aggregation.context_state import ContextState
from relprop.aggregation.extreme_state import ExtremeState
from relprop.aggregation.map_state import MapState
from relprop.aggregation.moments import Arrays, Summary
from relprop.aggregation.records import Record, recognised
from relprop.aggregation.region_state import RegionState
from relprop.aggregation.states import Row, State
from relprop.runs.classes import NO_LABEL

INSIDE_OUTSIDE = ("inside", "outside")
"""The regions for which the outside-inside ratio is kept."""


class Aggregate(State):
    """Everything that is kept of a run over a data set.

    Items are added one by one in their order, so that how batches were cut shows nowhere. Memory
    grows with the classes and pairs of classes that were seen, not with the items.

    Parameters
    ----------
    classes
        The names of the classes.
    regions
        The names of the regions; for ``("inside", "outside")`` the ratio mu is kept too.
    canvas
        Height and width of the average maps.
    channels
        Channels of the input.
    extremes
        Keys kept at either end, per class and region.
    bound
        Errors of conservation beyond this are counted, and the keys of the worst kept.
    """

    kind = "aggregate"

    def __init__(
        self,
        classes: Sequence[str],
        regions: Sequence[str],
        canvas: tuple[int, int],
        *,
        channels: int = 3,
        extremes: int = 10,
        bound: float = 1e-5,
    ) -> None:
        super().__init__(
            classes=list(classes),
            regions=list(regions),
            canvas=list(canvas),
            channels=channels,
            extremes=extremes,
            bound=float(bound),
        )
        self.classes = tuple(classes)
        self.regions = RegionState(regions)
        self.maps = MapState(canvas)
        self.extremes = ExtremeState(regions, extremes)
        self.channels = ChannelState(channels)
        self.conservation = ConservationState(bound)
        self.context = ContextState() if tuple(regions) == INSIDE_OUTSIDE else None

    @property
    def count(self) -> int:
        """The number of items."""
        return self.regions.count(self.regions.pairs)

    def update(self, records: Record | Iterable[Record]) -> None:
        """Add items, all of them or, where one does not fit, none."""
        together = [records] if isinstance(records, Record) else list(records)
        for record in together:
            self._check(record)
        for record in together:
            for state in self._states().values():
                state.update(record)

    def result(self) -> dict[str, list[Row]]:
        """What :meth:`tables` returns."""
        return self.tables()

    def tables(self) -> dict[str, list[Row]]:
        """Rows by the table's name.

        The tables are classes, regions, pairs, context, channels, extremes, conservation and
        beyond. A class is given by its name, None where it is not known. ``context`` is there for
        inside and outside alone.
        """
        tables = {
            "classes": self._class_rows(),
            "regions": self.regions.result(),
            "pairs": self.regions.by_pair(),
            "context": self.context.result() if self.context else [],
            "channels": self.channels.result(),
            "extremes": self.extremes.result(),
            "conservation": self.conservation.result(),
            "beyond": self.conservation.beyond(),
        }
        if not self.context:
            del tables["context"]
        return {name: [self._named(row) for row in rows] for name, rows in tables.items()}

    def average_maps(self) -> dict[str | None, Summary]:
        """The count, mean and variance of the maps, (H, W), by the class's name."""
        return {self._name(label): of for label, of in self.maps.result().items()}

    def write(self, arrays: Arrays) -> Any:
        content = {}
        for name, state in self._states().items():
            own: Arrays = {}
            content[name] = state.write(own)
            arrays.update({f"{name}.{key}": array for key, array in own.items()})
        return content

    def read(self, arrays: Mapping[str, NDArray[Any]], content: Any) -> None:
        for name, state in self._states().items():
            begin = f"{name}."
            own = {key[len(begin) :]: arrays[key] for key in arrays if key.startswith(begin)}
            state.read(own, content[name])

    def _join(self, other: Aggregate) -> None:
        for state, of_other in zip(self._states().values(), other._states().values()):
            state.merge(of_other)

    def _states(self) -> dict[str, State]:
        states: tuple[State | None, ...] = (
            self.regions,
            self.maps,
            self.extremes,
            self.channels,
            self.conservation,
            self.context,
        )
        return {state.kind: state for state in states if state is not None}

    def _check(self, record: Record) -> None:
        found = len(record.region_sums), len(record.channel_sums)
        wanted = len(self.regions.regions), self.settings["channels"]
        if found != wanted:
            raise ValueError(
                f"{record.key}: there must be {wanted[0]} regions and {wanted[1]} channels, not "
                f"{found[0]} and {found[1]}."
            )
        known = range(NO_LABEL, len(self.classes))
        if record.label not in known or record.predicted not in known:
            raise ValueError(
                f"{record.key}: there are {len(self.classes)} classes; label and predicted are "
                f"{record.label} and {record.predicted}."
            )

    def _class_rows(self) -> list[Row]:
        """A row per true class: its items, and those that the model recognises."""
        pairs = self.regions.pairs
        return [
            {
                "label": label,
                "count": self.regions.count([pair for pair in pairs if pair[0] == label]),
                "recognised": self.regions.count(recognised(label)),
            }
            for label in sorted({pair[0] for pair in pairs})
        ]

    def _name(self, label: int) -> str | None:
        return None if label == NO_LABEL else self.classes[label]

    def _named(self, row: Row) -> Row:
        labels = {"label": "class", "predicted": "predicted"}
        return {
            labels.get(key, key): self._name(value) if key in labels else value
            for key, value in row.items()
        }
