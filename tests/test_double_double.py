"""Pairs of float64 add up to what exact fractions do, and merge to it in any order."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from relprop.aggregation.double_double import Pair, added, joined

NUMBERS = st.floats(-1e30, 1e30, allow_subnormal=False)


def total_of(values: list[float]) -> Pair:
    high = low = np.asarray(0.0)
    for value in values:
        high, low = added(high, low, np.asarray(value))
    return high, low


@given(st.lists(NUMBERS), st.lists(NUMBERS))
def test_sums_are_exact_far_below_the_last_bit(one: list[float], other: list[float]) -> None:
    exact = sum(map(Fraction, [*one, *other]), Fraction(0))
    magnitude = sum((abs(Fraction(value)) for value in [*one, *other]), Fraction(0))
    for high, low in (total_of([*one, *other]), joined(*total_of(one), *total_of(other))):
        assert abs(Fraction(float(high)) + Fraction(float(low)) - exact) <= magnitude / 2**100
        assert high == high + low


def test_what_plain_sums_lose_is_kept() -> None:
    values = [1e16, 1.0, -1e16, 1.0]
    assert sum(values) == 1.0
    assert total_of(values)[0] == 2.0
