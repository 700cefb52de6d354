"""Statistics: what the records of a run say about its methods, in a few passes, with intervals.

Memory depends on the rows, metrics and classes, and not on the number of images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relprop.evaluation.bootstrap import Difference, Estimate, Resampling
from relprop.evaluation.curve import aopc
from relprop.evaluation.record_file import Record
from relprop.evaluation.settings import Row, Settings
from relprop.runs.classes import NO_LABEL

BAND_RESAMPLES = 1000
"""Bootstrap replicates for the bands of curves; their ends are no figures that one quotes."""

TableRow = dict[str, Any]
Tables = dict[str, list[TableRow]]

TABLES: dict[str, tuple[str, ...]] = {
    "aopc": ("perturbation", "order", "method", "images", "aopc", "low", "high"),
    "abpc": ("perturbation", "method", "images", "abpc", "low", "high"),
    "differences": (
        "perturbation",
        "order",
        "method",
        "other",
        "images",
        "difference",
        "low",
        "high",
        "p_value",
    ),
    "metrics": (
        "metric",
        "method",
        "images",
        "undefined",
        "mean",
        "low",
        "high",
        "class_mean",
    ),
    "mean_curves": ("perturbation", "order", "method", "step", "score", "drop", "low", "high"),
}
"""The tables and their columns."""


def record_aopc(record: Record) -> NDArray[np.float64]:
    """Return the area over each of a record's curves, (rows,)."""
    return aopc(record.curves[:, None])


def tables_of(
    records: Iterable[Record], count: int, methods: Sequence[str], settings: Settings
) -> Tables:
    """Make all tables.

    Parameters
    ----------
    records
        The records of a run, which are read several times.
    count
        How many they are, at least 1.
    methods
        The names of the methods.
    settings
        The run's.
    """
    rows = settings.rows(methods)
    resampling = Resampling(count, len(rows), resamples=settings.resamples, seed=settings.seed)
    for record in records:
        resampling.add(record_aopc(record))
    return {
        "aopc": _aopc(rows, resampling.estimate(settings.level)),
        "abpc": _abpc(rows, resampling, settings),
        "differences": _differences(rows, resampling, settings),
        "metrics": _metrics(records, methods, settings),
        "mean_curves": _mean_curves(records, count, rows, settings),
    }


def _aopc(rows: Sequence[Row], found: Estimate) -> list[TableRow]:
    return [
        {**_named(row), "images": found.images, "aopc": float(found.mean[i]), **_interval(found, i)}
        for i, row in enumerate(rows)
    ]


def _abpc(rows: Sequence[Row], resampling: Resampling, settings: Settings) -> list[TableRow]:
    """Of every method with both orders: AOPC most relevant first, less that of least relevant."""
    place = {row: i for i, row in enumerate(rows)}
    pairs = [
        (row, place[row], place[lerf])
        for row in rows
        if row.order == "morf" and (lerf := Row(row.perturbation, "lerf", row.method)) in place
    ]
    found = _paired(resampling, [pair[1:] for pair in pairs], settings)
    return [
        {
            "perturbation": row.perturbation,
            "method": row.method,
            "images": resampling.images,
            "abpc": float(found.mean[i]),
            **_interval(found, i),
        }
        for i, (row, *_) in enumerate(pairs)
    ]


def _differences(rows: Sequence[Row], resampling: Resampling, settings: Settings) -> list[TableRow]:
    """Of every two methods in one order, and of every method and the random order."""
    pairs = [
        (i, j)
        for (i, one), (j, other) in combinations(enumerate(rows), 2)
        if one.perturbation == other.perturbation and one.order == other.order
    ]
    pairs += [
        (i, j)
        for i, one in enumerate(rows)
        for j, other in enumerate(rows)
        if one.perturbation == other.perturbation and one.order != other.order == "random"
    ]
    pairs.sort(key=lambda pair: pair[0])
    found = _paired(resampling, pairs, settings)
    return [
        {
            **_named(rows[i]),
            "other": rows[j].method,
            "images": resampling.images,
            "difference": float(found.mean[k]),
            **_interval(found, k),
            "p_value": float(found.p_value[k]),
        }
        for k, (i, j) in enumerate(pairs)
    ]


def _paired(
    resampling: Resampling, pairs: Sequence[tuple[int, int]], settings: Settings
) -> Difference:
    ones, others = (np.array([pair[side] for pair in pairs], np.intp) for side in (0, 1))
    return resampling.difference(ones, others, settings.level)


def _mean_curves(
    records: Iterable[Record], count: int, rows: Sequence[Row], settings: Settings
) -> list[TableRow]:
    """Every row's mean score, and mean drop with its band, one perturbation at a time."""
    table = []
    for perturbation in settings.perturbations:
        own = [i for i, row in enumerate(rows) if row.perturbation == perturbation]
        steps = settings.steps + 1
        resampling = Resampling(
            count,
            len(own) * steps,
            resamples=min(BAND_RESAMPLES, settings.resamples),
            seed=settings.seed,
        )
        scores = np.zeros(len(own) * steps)
        for record in records:
            curves = record.curves[own]
            scores += curves.reshape(-1)
            resampling.add((curves[:, :1] - curves).reshape(-1))
        found = resampling.estimate(settings.level)
        table += [
            {
                **_named(rows[i]),
                "step": step,
                "score": float(scores[k * steps + step] / count),
                "drop": float(found.mean[k * steps + step]),
                **_interval(found, k * steps + step),
            }
            for k, i in enumerate(own)
            for step in range(steps)
        ]
    return table


# ---- metrics -------------------------------------------------------------------------------------


@dataclass
class _Column:
    """Where a metric of a method is defined: of how many images, and of which (their digest)."""

    defined: int = 0
    digest: Any = None
    by_class: dict[int, list[float]] | None = None


def _metrics(
    records: Iterable[Record], methods: Sequence[str], settings: Settings
) -> list[TableRow]:
    """Means over the images for which a metric is defined, and over the means of their classes."""
    words = [metric.word for metric in settings.metrics]
    places = [(m, k) for k in range(len(words)) for m in range(len(methods))]
    columns = {place: _Column(0, hashlib.sha256(), {}) for place in places}
    count = 0
    for record in records if words else ():
        count += 1
        for place, column in columns.items():
            _count(column, float(record.metrics[place]), record.label)
    found = _estimates(records, columns, settings)
    table = []
    for m, k in places:
        mean, low, high = found.get((m, k), (None, None, None))
        column = columns[m, k]
        table.append(
            {
                "metric": words[k],
                "method": methods[m],
                "images": column.defined,
                "undefined": count - column.defined,
                "mean": mean,
                "low": low,
                "high": high,
                "class_mean": _class_mean(column),
            }
        )
    return table


def _count(column: _Column, value: float, label: int) -> None:
    defined = not np.isnan(value)
    column.digest.update(b"1" if defined else b"0")
    if defined:
        column.defined += 1
        assert column.by_class is not None
        total = column.by_class.setdefault(label, [0.0, 0])
        total[0] += value
        total[1] += 1


def _class_mean(column: _Column) -> float | None:
    """The mean of the classes' means; None where an image has no class, or none is defined."""
    by_class = column.by_class or {}
    if not by_class or NO_LABEL in by_class:
        return None
    return sum(total / count for total, count in by_class.values()) / len(by_class)


def _estimates(
    records: Iterable[Record], columns: dict[tuple[int, int], _Column], settings: Settings
) -> dict[tuple[int, int], tuple[float | None, ...]]:
    """Mean and interval of each column; those that are defined for the same images share draws."""
    groups: dict[bytes, list[tuple[int, int]]] = {}
    for place, column in columns.items():
        if column.defined:
            groups.setdefault(column.digest.digest(), []).append(place)
    resamplings = [
        (
            places,
            Resampling(
                columns[places[0]].defined,
                len(places),
                resamples=settings.resamples,
                seed=settings.seed,
            ),
        )
        for places in groups.values()
    ]
    for record in records if resamplings else ():
        for places, resampling in resamplings:
            values = np.array([record.metrics[place] for place in places])
            if not np.isnan(values[0]):
                resampling.add(values)
    found: dict[tuple[int, int], tuple[float | None, ...]] = {}
    for places, resampling in resamplings:
        estimate = resampling.estimate(settings.level)
        for i, place in enumerate(places):
            interval = _interval(estimate, i)
            found[place] = (float(estimate.mean[i]), interval["low"], interval["high"])
    return found


# ---- parts ---------------------------------------------------------------------------------------


def _named(row: Row) -> TableRow:
    return {"perturbation": row.perturbation, "order": row.order, "method": row.method}


def _interval(found: Estimate, place: int) -> dict[str, float | None]:
    """The ends of an interval, None where one image tells none."""
    low, high = float(found.low[place]), float(found.high[place])
    return {"low": None if np.isnan(low) else low, "high": None if np.isnan(high) else high}
