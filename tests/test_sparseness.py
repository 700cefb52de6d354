"""Gini index and entropy against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from relprop.evaluation import entropy, gini

MAPS = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.floats(-5, 5)
)


def gini_by_pairs(values: np.ndarray) -> float:
    """Half the mean absolute difference over the mean, which is another form of the index."""
    v = [abs(float(value)) for value in values.ravel()]
    differences = sum(abs(a - b) for a in v for b in v)
    return differences / (2 * len(v) * sum(v))


def entropy_by_loops(values: np.ndarray) -> float:
    total = math.fsum(abs(value) for value in values.ravel())
    shares = [abs(value) / total for value in values.ravel()]
    return -math.fsum(share * math.log(share) for share in shares if share > 0)


@given(MAPS)
def test_both_agree_with_loops(values: np.ndarray) -> None:
    assume(np.abs(values).max() > 1e-100)
    assert gini(values) == pytest.approx(gini_by_pairs(values), abs=1e-12)
    assert entropy(values) == pytest.approx(entropy_by_loops(values), abs=1e-12)


@given(MAPS, st.floats(-100, 100))
def test_scale_and_sign_do_not_matter(values: np.ndarray, factor: float) -> None:
    assume(abs(factor) > 0.01 and np.abs(values).max() > 1e-100)
    assert gini(values * factor) == pytest.approx(gini(values), abs=1e-12)
    assert entropy(values * factor) == pytest.approx(entropy(values), abs=1e-12)


def test_the_ends_of_the_scales() -> None:
    alone = np.zeros((4, 5))
    alone[2, 3] = -7.0
    assert gini(alone) == pytest.approx(1 - 1 / 20)
    assert entropy(alone) == 0.0 and math.copysign(1.0, entropy(alone)) == 1.0
    alike = np.full((4, 5), -2.0)
    assert gini(alike) == pytest.approx(0.0, abs=1e-15)
    assert entropy(alike) == pytest.approx(math.log(20))


def test_a_map_of_zeros_has_neither() -> None:
    assert math.isnan(gini(np.zeros((3, 3)))) and math.isnan(entropy(np.zeros((3, 3))))


@pytest.mark.parametrize("scale", [1e308, 1e-310])
def test_any_magnitude_will_do(scale: float) -> None:
    values = np.array([[1.0, 0.5], [0.25, 0.0]])
    assert gini(values * scale) == pytest.approx(gini(values), rel=1e-9)
    assert entropy(values * scale) == pytest.approx(entropy(values), rel=1e-9)


@pytest.mark.parametrize("function", [gini, entropy])
def test_what_is_no_map_is_refused(function) -> None:
    with pytest.raises(ValueError, match=r"finite, not inf at pixel \(0, 0\)"):
        function([[math.inf, 1.0]])
    with pytest.raises(ValueError, match=r"for each image, not \(3,\)"):
        function([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"for each image, not \(0, 3\)"):
        function(np.zeros((0, 3)))
