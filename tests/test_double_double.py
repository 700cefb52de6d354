"""Pairs of float64 add up to what exact fractions do, and merge to it in any order."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relprop import _core
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


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=20))
def test_the_core_adds_as_pairs_are_defined(rows: list[tuple[float, float]]) -> None:
    high, low = np.zeros((2, 2)), np.zeros((2, 2))
    expected = np.zeros((2, 2)), np.zeros((2, 2))
    for row in rows:
        values = np.array(row)
        _core.add_moments(values, high, low)
        expected = added(*expected, np.stack([values, values * values]))
    np.testing.assert_array_equal(high, expected[0])
    np.testing.assert_array_equal(low, expected[1])


@pytest.mark.parametrize(
    ("values", "high"),
    [
        (np.zeros(3, np.float32), np.zeros((2, 3))),
        (np.zeros(3), np.zeros((2, 4))),
        (np.zeros(3), np.zeros(6)),
        (np.zeros((3, 2))[:, 0], np.zeros((2, 3))),
    ],
)
def test_pairs_that_do_not_fit_are_refused(values: np.ndarray, high: np.ndarray) -> None:
    with pytest.raises((TypeError, ValueError), match="must"):
        _core.add_moments(values, high, np.zeros((2, 3)))


def test_what_plain_sums_lose_is_kept() -> None:
    values = [1e16, 1.0, -1e16, 1.0]
    assert sum(values) == 1.0
    assert total_of(values)[0] == 2.0
