"""ExtremeState: which items have most and least of their positive relevance in a region."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from relprop.aggregation.moments import Arrays
from relprop.aggregation.records import Record
from relprop.aggregation.states import Row, State

ENDS = ("largest", "smallest")
"""The two ends of the order, as rows and bytes name them."""

_Item = tuple[float, str]
_Place = tuple[int, int, str]


class ExtremeState(State):
    """The keys of the ``count`` items with the largest and the smallest share, best first.

    The share is that of :attr:`Record.shares`. It is kept by true class and region; of equal
    shares the lesser keys are kept.
    """

    kind = "extremes"

    def __init__(self, regions: Sequence[str], count: int = 10) -> None:
        if count < 1:
            raise ValueError(f"count must be >= 1, not {count}.")
        super().__init__(regions=list(regions), count=count)
        self.regions = tuple(regions)
        self.count = count
        self._items: dict[_Place, list[_Item]] = {}

    def update(self, record: Record) -> None:
        shares = record.shares
        if shares is None:
            return
        if len(shares) != len(self.regions):
            raise ValueError(f"there are {len(self.regions)} regions, not {len(shares)}.")
        for region, share in enumerate(shares.tolist()):
            for end in ENDS:
                self._add((record.label, region, end), [(share, record.key)])

    def result(self) -> list[Row]:
        """A row per true class, region, end and rank."""
        return [
            {
                "label": label,
                "region": self.regions[region],
                "end": end,
                "rank": rank,
                "share": share,
                "key": key,
            }
            for (label, region, end), items in sorted(self._items.items())
            for rank, (share, key) in enumerate(items, 1)
        ]

    def write(self, arrays: Arrays) -> Any:
        return [[*place, items] for place, items in sorted(self._items.items())]

    def read(self, arrays: Mapping[str, NDArray[Any]], content: Any) -> None:
        for label, region, end, items in content:
            if type(label) is not int or end not in ENDS or not 0 <= region < len(self.regions):
                raise ValueError(f"there is no place ({label!r}, {region!r}, {end!r}).")
            self._add((label, region, end), read_items(items))

    def _join(self, other: ExtremeState) -> None:
        for place, items in other._items.items():
            self._add(place, items)

    def _add(self, place: _Place, items: Iterable[_Item]) -> None:
        held = self._items.get(place, [])
        self._items[place] = best_of([*held, *items], self.count, largest=place[2] == ENDS[0])


def best_of(items: Iterable[_Item], count: int, *, largest: bool) -> list[_Item]:
    """The first ``count`` items in order of their number, then of their key."""
    sign = -1.0 if largest else 1.0
    return sorted(items, key=lambda item: (sign * item[0], item[1]))[:count]


def read_items(content: Any) -> list[_Item]:
    """Numbers and keys as JSON has them."""
    items = [(share, key) for share, key in content]
    if not all(type(share) is float and type(key) is str for share, key in items):
        raise ValueError("an item must be a number and a key.")
    return items
