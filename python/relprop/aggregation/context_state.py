"""ContextState: the outside-inside relevance ratio mu (Lapuschkin et al. 2016), by class.

mu is the mean over pixels outside of positive relevance, divided by that over pixels inside. A
large one says that a class is recognised by its surroundings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relprop.aggregation.moments import Arrays, Counts, Group, Moments
from relprop.aggregation.records import PIXELS, POSITIVE, Record, recognised
from relprop.aggregation.states import Row, State, number

_UNDEFINED = 0
_PER_OCTAVE, _OCTAVES = 8, 20
_BINS = 2 * _PER_OCTAVE * _OCTAVES
"""Bins of equal ratios from 2^-20 to 2^20; a first and a last one hold what lies beyond."""


class ContextState(State):
    """Count, mean, deviation and median of mu, of all items and of those that are recognised.

    mu is not defined, and counted so, where a side has no pixel or the inside no positive
    relevance. The median is the middle of a bin and right to within 5 percent, between 1e-6
    and 1e6.
    """

    kind = "context"

    def __init__(self) -> None:
        super().__init__()
        self._ratios = Moments((), depth=2)
        self._counts = Counts(_BINS + 3, depth=2)

    def update(self, record: Record) -> None:
        if len(record.region_sums) != 2:
            raise ValueError(
                f"{record.key}: mu needs the regions inside and outside, not "
                f"{len(record.region_sums)} regions."
            )
        pair = (record.label, record.predicted)
        ratio = outside_inside_ratio(record.region_sums)
        self._counts.add(pair, _UNDEFINED if ratio is None else _bin(ratio))
        if ratio is not None:
            self._ratios.add(pair, np.asarray(ratio))

    def result(self) -> list[Row]:
        """Two rows per true class: all of its items, and the recognised ones."""
        rows: list[Row] = []
        for label in sorted({pair[0] for pair in self._counts.groups}):
            pairs = [pair for pair in self._counts.groups if pair[0] == label]
            rows.append({"label": label, "items": "all", **self._row(pairs)})
            rows.append({"label": label, "items": "recognised", **self._row(recognised(label))})
        return rows

    def _row(self, pairs: Sequence[Group]) -> Row:
        counts = self._counts.over(pairs)
        over = self._ratios.over(pairs)
        return {
            "count": int(counts.sum()),
            "undefined": int(counts[_UNDEFINED]),
            "mu_mean": number(float(over.mean)),
            "mu_std": number(float(over.deviation)),
            "mu_median": number(_median(counts[1:])),
        }

    def write(self, arrays: Arrays) -> Any:
        self._ratios.write(arrays, "ratios")
        self._counts.write(arrays, "bins")

    def read(self, arrays: Mapping[str, NDArray[Any]], content: Any) -> None:
        self._ratios.read(arrays, "ratios")
        self._counts.read(arrays, "bins")

    def _join(self, other: ContextState) -> None:
        self._ratios.merge(other._ratios)
        self._counts.merge(other._counts)


def outside_inside_ratio(region_sums: NDArray[np.float64]) -> float | None:
    """Return mu of the regions inside and outside, (2, 3); None where it is not defined."""
    (inside, outside), (within, beyond) = region_sums[:, POSITIVE], region_sums[:, PIXELS]
    if within == 0 or beyond == 0 or inside / within <= 1e-100 * (outside / beyond):
        return None
    return float((outside / beyond) / (inside / within))


def _bin(ratio: float) -> int:
    """The kind under which a ratio is counted, from 1 to _BINS + 2."""
    octaves = math.log2(max(ratio, 1e-300))
    return 1 + int(min(max(math.floor((octaves + _OCTAVES) * _PER_OCTAVE), -1), _BINS) + 1)


def _median(bins: NDArray[np.int64]) -> float:
    """The middle of the bin that holds the (lower) median; NaN where all are empty."""
    total = int(bins.sum())
    if total == 0:
        return math.nan
    at = int(np.searchsorted(np.cumsum(bins), (total + 1) // 2))
    return float(2.0 ** ((at - 0.5) / _PER_OCTAVE - _OCTAVES))
