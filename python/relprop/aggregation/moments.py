"""Moments and Counts: sums by group, which merge in any order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relprop import _core
from relprop.aggregation.double_double import Float64, joined

Group = tuple[int, ...]
"""A class, or a pair of a true and a predicted one."""

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Summary:
    """Count, mean and variance (the mean squared distance); both NaN where the count is 0."""

    count: int
    mean: Float64
    variance: Float64

    @property
    def deviation(self) -> Float64:
        """The square root of the variance."""
        root: Float64 = np.sqrt(self.variance)
        return root


@dataclass
class _Sums:
    """Items of a group, and their sum and sum of squares, (2, ...), as pairs."""

    count: int
    high: Float64
    low: Float64


class Moments:
    """Count, sum and sum of squares of arrays of one shape, by group.

    The sums are double-double: merging in another order changes less than the last bit of a mean.
    The variance is the difference of two means and has an error of 1e-16 of the mean square.
    """

    def __init__(self, shape: tuple[int, ...], depth: int = 1) -> None:
        self.shape = shape
        self.depth = depth
        self._sums: dict[Group, _Sums] = {}

    @property
    def groups(self) -> list[Group]:
        """The groups of which there is an item, in order."""
        return sorted(self._sums)

    def add(self, group: Group, values: Float64) -> None:
        """Add one item."""
        if values.shape != self.shape:
            raise ValueError(f"values must have shape {self.shape}, not {values.shape}.")
        if group not in self._sums:
            pairs = (2, *self.shape)
            self._sums[group] = _Sums(0, np.zeros(pairs), np.zeros(pairs))
        held = self._sums[group]
        held.count += 1
        _core.add_moments(np.asarray(values, order="C"), held.high, held.low)

    def merge(self, other: Moments) -> None:
        """Add all items of another one, which stays as it is."""
        for group in other.groups:
            self._sums[group] = _merged(self._sums.get(group), other._sums[group])

    def over(self, groups: Iterable[Group]) -> Summary:
        """Count, mean and variance of all items of some groups."""
        total: _Sums | None = None
        for group in sorted(set(groups) & self._sums.keys()):
            total = _merged(total, self._sums[group])
        if total is None:
            nothing = np.full(self.shape, np.nan)
            return Summary(0, nothing, nothing)
        mean, square = total.high / total.count
        return Summary(total.count, mean, np.maximum(square - mean * mean, 0.0))

    def write(self, arrays: Arrays, name: str) -> None:
        """Put all content among the arrays of a state, in the order of the groups."""
        groups = self.groups
        held = [self._sums[group] for group in groups]
        shape = (len(groups), 2, *self.shape)
        arrays[f"{name}.groups"] = np.array(groups, np.int64).reshape(len(groups), self.depth)
        arrays[f"{name}.counts"] = np.array([sums.count for sums in held], np.int64)
        arrays[f"{name}.high"] = np.array([sums.high for sums in held], np.float64).reshape(shape)
        arrays[f"{name}.low"] = np.array([sums.low for sums in held], np.float64).reshape(shape)

    def read(self, arrays: Mapping[str, NDArray[Any]], name: str) -> None:
        """Take the content that :meth:`write` put there."""
        groups = read_groups(arrays, name, self.depth)
        shape = (len(groups), 2, *self.shape)
        counts = read_array(arrays, f"{name}.counts", np.int64, shape[:1])
        high = read_array(arrays, f"{name}.high", np.float64, shape)
        low = read_array(arrays, f"{name}.low", np.float64, shape)
        self._sums = {
            group: _Sums(int(counts[i]), high[i].copy(), low[i].copy())
            for i, group in enumerate(groups)
        }


def _merged(one: _Sums | None, other: _Sums) -> _Sums:
    if one is None:
        return _Sums(other.count, other.high.copy(), other.low.copy())
    return _Sums(one.count + other.count, *joined(one.high, one.low, other.high, other.low))


class Counts:
    """Whole numbers of ``size`` kinds, by group."""

    def __init__(self, size: int, depth: int = 1) -> None:
        self.size = size
        self.depth = depth
        self._counts: dict[Group, NDArray[np.int64]] = {}

    @property
    def groups(self) -> list[Group]:
        """The groups that something was counted of, in order."""
        return sorted(self._counts)

    def add(self, group: Group, kind: int) -> None:
        """Count one item."""
        if group not in self._counts:
            self._counts[group] = np.zeros(self.size, np.int64)
        self._counts[group][kind] += 1

    def merge(self, other: Counts) -> None:
        """Add all that another one counted, which stays as it is."""
        for group, counts in other._counts.items():
            self._counts[group] = self._counts.get(group, 0) + counts

    def over(self, groups: Iterable[Group]) -> NDArray[np.int64]:
        """The numbers of some groups together."""
        total = np.zeros(self.size, np.int64)
        for group in set(groups) & self._counts.keys():
            total += self._counts[group]
        return total

    def write(self, arrays: Arrays, name: str) -> None:
        """Put all content among the arrays of a state, in the order of the groups."""
        groups = self.groups
        counts = np.array([self._counts[group] for group in groups], np.int64)
        arrays[f"{name}.groups"] = np.array(groups, np.int64).reshape(len(groups), self.depth)
        arrays[f"{name}.counts"] = counts.reshape(len(groups), self.size)

    def read(self, arrays: Mapping[str, NDArray[Any]], name: str) -> None:
        """Take the content that :meth:`write` put there."""
        groups = read_groups(arrays, name, self.depth)
        counts = read_array(arrays, f"{name}.counts", np.int64, (len(groups), self.size))
        self._counts = {group: counts[i].copy() for i, group in enumerate(groups)}


def read_groups(arrays: Mapping[str, NDArray[Any]], name: str, depth: int) -> list[Group]:
    """The groups of a written part; in order, none twice."""
    found = arrays.get(f"{name}.groups")
    length = 0 if found is None else len(found)
    rows = read_array(arrays, f"{name}.groups", np.int64, (length, depth))
    groups = [tuple(row) for row in rows.tolist()]
    if groups != sorted(set(groups)):
        raise ValueError(f"{name}.groups must be in order, none twice.")
    return groups


def read_array(
    arrays: Mapping[str, NDArray[Any]], name: str, kind: type[Any], shape: tuple[int, ...]
) -> NDArray[Any]:
    """An array of a written part, of this kind and shape."""
    array = arrays.get(name)
    if array is None:
        raise ValueError(f"{name} is missing.")
    if array.dtype != kind or array.shape != shape:
        raise ValueError(
            f"{name} must be {np.dtype(kind)} of shape {shape}, not {array.dtype} of {array.shape}."
        )
    return array
