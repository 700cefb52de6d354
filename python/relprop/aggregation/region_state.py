"""RegionState: how much relevance regions hold, by true and predicted class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from relprop.aggregation.moments import Arrays, Group, Moments
from relprop.aggregation.records import PIXELS, POSITIVE, SUM, Record
from relprop.aggregation.states import Row, State, number

QUANTITIES = ("relevance", "positive", "pixels", "fraction", "share")
"""What is kept of each region: the sum of its relevance, of its positive part, its pixels, its
fraction of f(x), its share of all regions' positive relevance. The last two are not defined where
f(x) or the positive relevance is 0; such items are counted."""


class RegionState(State):
    """Count, mean and deviation of every quantity, per region and pair of classes."""

    kind = "regions"

    def __init__(self, regions: Sequence[str]) -> None:
        super().__init__(regions=list(regions))
        self.regions = tuple(regions)
        self._moments = {name: Moments((len(self.regions),), depth=2) for name in QUANTITIES}

    @property
    def pairs(self) -> list[Group]:
        """The pairs of a true and a predicted class of which there is an item, in order."""
        return self._moments["relevance"].groups

    def count(self, pairs: Iterable[Group]) -> int:
        """The number of items of some pairs."""
        return self._moments["relevance"].over(pairs).count

    def update(self, record: Record) -> None:
        pair = (record.label, record.predicted)
        values = {
            "relevance": record.region_sums[:, SUM],
            "positive": record.region_sums[:, POSITIVE],
            "pixels": record.region_sums[:, PIXELS],
            "fraction": record.fractions,
            "share": record.shares,
        }
        for name, of_regions in values.items():
            if of_regions is not None:
                self._moments[name].add(pair, of_regions)

    def result(self) -> list[Row]:
        """A row per true class and region."""
        labels = sorted({label for label, _ in self.pairs})
        return [
            {"label": label, **row}
            for label in labels
            for row in self.rows([pair for pair in self.pairs if pair[0] == label])
        ]

    def by_pair(self) -> list[Row]:
        """A row per true class, predicted class and region."""
        return [
            {"label": pair[0], "predicted": pair[1], **row}
            for pair in self.pairs
            for row in self.rows([pair])
        ]

    def rows(self, pairs: Sequence[Group]) -> list[Row]:
        """A row per region, over all items of some pairs."""
        count = self.count(pairs)
        rows: list[Row] = [{"region": name, "count": count} for name in self.regions]
        for name, moments in self._moments.items():
            over = moments.over(pairs)
            deviation = over.deviation
            for i, row in enumerate(rows):
                row[f"{name}_mean"] = number(over.mean[i])
                row[f"{name}_std"] = number(deviation[i])
                if name in ("fraction", "share"):
                    row[f"{name}_undefined"] = count - over.count
        return rows

    def write(self, arrays: Arrays) -> Any:
        for name, moments in self._moments.items():
            moments.write(arrays, name)

    def read(self, arrays: Mapping[str, NDArray[Any]], content: Any) -> None:
        for name, moments in self._moments.items():
            moments.read(arrays, name)

    def _join(self, other: RegionState) -> None:
        for name, moments in self._moments.items():
            moments.merge(other._moments[name])
