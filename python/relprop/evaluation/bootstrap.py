"""Bootstrap: how sure a mean over images is, and the difference of two means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relprop.evaluation.streams import Stream

Float64 = NDArray[np.float64]

CHUNK = 128
"""How many images are resampled at a time; results depend on it."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """A mean over images with its interval; each a float64 array of the columns' shape.

    ``low`` and ``high`` are NaN where there is one image.
    """

    mean: Float64
    low: Float64
    high: Float64
    level: float
    images: int


@dataclass(frozen=True, eq=False)
class Difference(Estimate):
    """The mean of paired differences, its interval, and the two-sided p-value of no difference."""

    p_value: Float64


class Resampling:
    """Draws images again, chunk by chunk, for any number of columns at once.

    A bootstrap replicate draws n of n images with replacement. How often each is drawn is
    multinomial, and that can be drawn part by part: of the draws that are left, those that fall
    into the next c of m images are Binomial(left, c / m), and spread over them evenly. So a table
    can be read once, in memory that does not grow with the images, and the chunks in which it is
    read show nowhere. All columns share the draws, and so the differences of columns are paired.

    The p-value is that of a sign-flip test: where two methods do not differ, the sign of an image's
    difference is as likely to be the other one. If there are no more than ``resamples`` ways to
    choose all signs, all are tried and the p-value is exact; else signs are drawn and it is
    (1 + extremes) / (1 + resamples).

    Parameters
    ----------
    images
        How many rows will come, n.
    columns
        How many values each has.
    resamples
        How many replicates are drawn.
    seed
        Of the draws.

    Raises
    ------
    ValueError
        If one of them is less than 1 (the seed may be any).
    """

    def __init__(
        self, images: int, columns: int, *, resamples: int = 10_000, seed: int = 0
    ) -> None:
        for name, value in (("images", images), ("columns", columns), ("resamples", resamples)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}.")
        self.images = images
        self.columns = columns
        self.resamples = resamples
        self.seed = seed
        self._exact = images < 63 and 2**images <= resamples
        flips = 2**images if self._exact else resamples
        stream = Stream(seed, ("bootstrap",))
        self._draws = stream.child("draws").generator()
        self._signs = stream.child("signs").generator()
        self._left = np.full(resamples, images, np.int64)
        self._waiting: list[Float64] = []
        self._read = 0
        self._done = 0
        self._total = np.zeros(columns)
        self._magnitude = np.zeros(columns)
        self._resampled = np.zeros((resamples, columns))
        self._flipped = np.zeros((flips, columns))

    def add(self, rows: ArrayLike) -> None:
        """Read the next images' values, (rows, columns), or one image's, (columns,).

        Raises
        ------
        ValueError
            If they have another number of columns, are not finite, or are more than were announced.
        """
        given = np.asarray(rows, np.float64)
        given = given[None] if given.ndim == 1 else given
        if given.ndim != 2 or given.shape[1] != self.columns:
            raise ValueError(f"rows must have shape (rows, {self.columns}), not {given.shape}.")
        if not np.isfinite(given).all():
            row, column = np.argwhere(~np.isfinite(given))[0].tolist()
            raise ValueError(
                f"rows must be finite, not {given[row, column]} (image {self._read + row}, column "
                f"{column})."
            )
        self._read += len(given)
        if self._read > self.images:
            raise ValueError(f"rows must be {self.images} in all, not {self._read} or more.")
        self._waiting.append(given)
        waiting = self._read - self._done
        while waiting >= CHUNK or (waiting and self._read == self.images):
            joined = np.concatenate(self._waiting)
            self._resample(joined[:CHUNK])
            self._waiting = [joined[CHUNK:].copy()]
            waiting = self._read - self._done

    def estimate(self, level: float = 0.95) -> Estimate:
        """Return the mean of every column with its percentile interval.

        Parameters
        ----------
        level
            The share of replicates whose mean lies in the interval.

        Raises
        ------
        ValueError
            If not all rows have come, or the level is not between 0 and 1.
        """
        low, high = self._interval(self._resampled, level)
        return Estimate(self._total / self.images, low, high, level, self.images)

    def difference(self, one: Any, other: Any, level: float = 0.95) -> Difference:
        """Return the mean of column ``one`` minus column ``other``, paired by images.

        Parameters
        ----------
        one, other
            A column's number, or arrays or slices of them, of the same number.
        level
            The share of replicates whose mean lies in the interval.

        Raises
        ------
        ValueError
            If not all rows have come, or the level is not between 0 and 1.
        """
        low, high = self._interval(self._resampled[:, one] - self._resampled[:, other], level)
        found = self._total[one] - self._total[other]
        flipped = np.abs(self._flipped[:, one] - self._flipped[:, other])
        # sums in another order may differ by this much and are as extreme
        slack = 1e-12 * (self._magnitude[one] + self._magnitude[other])
        extremes = (flipped >= np.abs(found) - slack).sum(axis=0)
        p_value = extremes / len(flipped) if self._exact else (1 + extremes) / (1 + len(flipped))
        return Difference(
            mean=np.asarray(found / self.images),
            low=low,
            high=high,
            level=level,
            images=self.images,
            p_value=np.asarray(p_value, np.float64),
        )

    def _interval(self, sums: Float64, level: float) -> tuple[Float64, Float64]:
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, not {level}.")
        if self._read < self.images:
            raise ValueError(f"rows must be {self.images} in all; {self._read} have come.")
        if self.images == 1:
            return np.full(sums.shape[1:], np.nan), np.full(sums.shape[1:], np.nan)
        tail = (1 - level) / 2
        low, high = np.quantile(sums / self.images, (tail, 1 - tail), axis=0)
        return np.asarray(low), np.asarray(high)

    def _resample(self, rows: Float64) -> None:
        """Enter the next rows into every replicate."""
        count, ahead = len(rows), self.images - self._done
        self._total += rows.sum(axis=0)
        self._magnitude += np.abs(rows).sum(axis=0)
        here = self._left if count == ahead else self._draws.binomial(self._left, count / ahead)
        self._left = self._left - here
        replicate = np.repeat(np.arange(self.resamples), here)
        chosen = (self._draws.random(len(replicate)) * count).astype(np.int64)
        drawn = np.bincount(replicate * count + chosen, minlength=self.resamples * count)
        self._resampled += drawn.reshape(self.resamples, count).astype(np.float64) @ rows
        if self._exact:
            numbers = np.arange(len(self._flipped))[:, None]
            negative = (numbers >> (self._done + np.arange(count)) & 1).astype(np.uint8)
        else:
            bits = self._signs.integers(0, 256, (self.resamples, -(-count // 8)), np.uint8)
            negative = np.unpackbits(bits, axis=1, count=count)
        self._flipped += (1.0 - 2.0 * negative) @ rows
        self._done += count


def estimate(
    values: ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """Return the mean over images with its bootstrap interval (percentiles).

    Parameters
    ----------
    values
        A value for each image, (images,), such as :func:`relprop.evaluation.aopc` returns; or more,
        (images, ...), such as ``curve.mean``, for which the result is a band, point by point.
    level
        The share of replicates whose mean lies in the interval.
    resamples
        How many replicates are drawn.
    seed
        Of the draws.

    Raises
    ------
    ValueError
        If there is no image, a value is not finite, or an argument is out of range.
    """
    rows, shape = _rows(values, "values")
    found = _resampled(rows, resamples, seed).estimate(level)
    mean, low, high = (a.reshape(shape) for a in (found.mean, found.low, found.high))
    return Estimate(mean, low, high, level, len(rows))


def difference(
    a: ArrayLike, b: ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Difference:
    """Return the mean of a - b over images, paired, with its interval and a p-value.

    The interval is the bootstrap's over images, the p-value that of a two-sided sign-flip test of
    no difference; see :class:`Resampling`. Point by point where an image has several values.

    Parameters
    ----------
    a, b
        Values for the same images in the same order, (images,) or (images, ...).
    level
        The share of replicates whose mean lies in the interval.
    resamples
        How many replicates and how many random signs are drawn.
    seed
        Of the draws.

    Raises
    ------
    ValueError
        If the shapes differ, there is no image, a value is not finite, or an argument is out of
        range.
    """
    ones, shape = _rows(a, "a")
    others, other_shape = _rows(b, "b")
    if (len(ones), shape) != (len(others), other_shape):
        raise ValueError(
            "a and b must have the same shape, not "
            f"{(len(ones), *shape)} and {(len(others), *other_shape)}."
        )
    columns = ones.shape[1]
    found = _resampled(np.concatenate([ones, others], axis=1), resamples, seed).difference(
        slice(columns), slice(columns, None), level
    )
    mean, low, high, p_value = (
        x.reshape(shape) for x in (found.mean, found.low, found.high, found.p_value)
    )
    return Difference(mean, low, high, level, len(ones), p_value)


def _resampled(rows: Float64, resamples: int, seed: int) -> Resampling:
    resampling = Resampling(len(rows), rows.shape[1], resamples=resamples, seed=seed)
    resampling.add(rows)
    return resampling


def _rows(values: ArrayLike, name: str) -> tuple[Float64, tuple[int, ...]]:
    array = np.asarray(values, np.float64)
    if array.ndim == 0 or 0 in array.shape:
        raise ValueError(f"{name} must have an image and a value, not shape {array.shape}.")
    if not np.isfinite(array).all():
        at = tuple(np.argwhere(~np.isfinite(array))[0].tolist())
        raise ValueError(f"{name} must be finite, not {array[at]} at {at}.")
    return array.reshape(len(array), math.prod(array.shape[1:])), array.shape[1:]
