"""ConservationState: how well relevance is conserved, from f(x) down to regions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relprop.aggregation.extreme_state import best_of, read_items
from relprop.aggregation.moments import Arrays, Moments
from relprop.aggregation.records import PIXELS, SUM, Record
from relprop.aggregation.states import Row, State, number

LEVELS = ("ledger", "score", "pixels", "regions")
"""What must be equal: all that the ledger says; f(x) less what was absorbed and the sum over
channels; that and the sum over pixels; that and the sum over regions, where those leave out
no pixel."""

KEPT = 100
"""Keys of items beyond the bound that are kept at each level, the worst."""


class ConservationState(State):
    """Errors at every level, relative to the largest sum of magnitudes that is known of an item.

    That is the largest of the ledger's, of the map's and of |f(x)|. Items whose error is beyond
    ``bound`` are counted, and the worst of them kept by key.
    """

    kind = "conservation"

    def __init__(self, bound: float = 1e-5) -> None:
        if not bound > 0:
            raise ValueError(f"bound must be > 0, not {bound}.")
        super().__init__(bound=float(bound))
        self.bound = float(bound)
        self._errors = Moments(())
        self._largest = [0.0] * len(LEVELS)
        self._beyond = [0] * len(LEVELS)
        self._worst: list[list[tuple[float, str]]] = [[] for _ in LEVELS]

    def update(self, record: Record) -> None:
        for level, error in _errors(record):
            self._errors.add((level,), np.asarray(error))
            self._largest[level] = max(self._largest[level], error)
            if error > self.bound:
                self._add(level, 1, [(error, record.key)])

    def result(self) -> list[Row]:
        """A row per level; ``count`` is the number of items for which it is defined."""
        rows: list[Row] = []
        for level, name in enumerate(LEVELS):
            over = self._errors.over([(level,)])
            rows.append(
                {
                    "level": name,
                    "count": over.count,
                    "largest_error": self._largest[level] if over.count else None,
                    "mean_error": number(float(over.mean)),
                    "beyond": self._beyond[level],
                }
            )
        return rows

    def beyond(self) -> list[Row]:
        """A row per level and item beyond the bound, the worst first, up to ``KEPT``."""
        return [
            {"level": name, "error": error, "key": key}
            for level, name in enumerate(LEVELS)
            for error, key in self._worst[level]
        ]

    def write(self, arrays: Arrays) -> Any:
        self._errors.write(arrays, "errors")
        return {"largest": self._largest, "beyond": self._beyond, "worst": self._worst}

    def read(self, arrays: Mapping[str, NDArray[Any]], content: Any) -> None:
        self._errors.read(arrays, "errors")
        for level in range(len(LEVELS)):
            self._largest[level] = float(content["largest"][level])
            self._add(level, int(content["beyond"][level]), read_items(content["worst"][level]))

    def _join(self, other: ConservationState) -> None:
        self._errors.merge(other._errors)
        for level in range(len(LEVELS)):
            self._largest[level] = max(self._largest[level], other._largest[level])
            self._add(level, other._beyond[level], other._worst[level])

    def _add(self, level: int, count: int, items: list[tuple[float, str]]) -> None:
        self._beyond[level] += count
        self._worst[level] = best_of([*self._worst[level], *items], KEPT, largest=True)


def _errors(record: Record) -> Iterator[tuple[int, float]]:
    """Each level that is defined, and the record's error there."""
    of_map = np.abs(record.map).sum(dtype=np.float64)
    scale = max(record.magnitude, float(of_map), abs(record.score)) or 1.0
    pixels = float(record.map.sum(dtype=np.float64))
    total = float(record.channel_sums.sum())
    if record.ledger_error is not None:
        yield 0, abs(record.ledger_error)
    if record.absorbed is not None:
        yield 1, abs(record.score - record.absorbed - total) / scale
    yield 2, abs(total - pixels) / scale
    if record.region_sums[:, PIXELS].sum() == record.map.size:
        yield 3, abs(total - float(record.region_sums[:, SUM].sum())) / scale
