"""Sums as pairs of float64 (double-double): the order of adding shows only below 2^-100.

A pair is a rounded sum and what rounding left out. Nothing here may meet an infinite number, whose
rounding error is NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Pair = tuple[Float64, Float64]


def two_sum(a: Float64, b: Float64) -> Pair:
    """Return ``a + b`` as float64 rounds it, and exactly what that leaves out (Knuth)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def added(high: Float64, low: Float64, values: Float64) -> Pair:
    """Add float64 to a pair."""
    total, error = two_sum(high, values)
    return _rounded(total, error + low)


def joined(high: Float64, low: Float64, other_high: Float64, other_low: Float64) -> Pair:
    """Add a pair to a pair."""
    total, error = two_sum(high, other_high)
    rest, last = two_sum(low, other_low)
    total, error = _rounded(total, error + rest)
    return _rounded(total, error + last)


def _rounded(high: Float64, low: Float64) -> Pair:
    """Return the same sum with the smaller part below the larger one's last bit (Dekker)."""
    total = high + low
    return total, low - (total - high)
