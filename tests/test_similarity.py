"""Spearman's correlation and SSIM against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import relprop.optional
from relprop.evaluation import SIMILARITIES, spearman, spearman_absolute, ssim


def ranks(values: np.ndarray) -> list[float]:
    """The mean rank of equals, from 1."""
    flat = values.ravel().tolist()
    return [
        sum(other < value for other in flat) + (sum(other == value for other in flat) + 1) / 2
        for value in flat
    ]


def correlation(a: list[float], b: list[float]) -> float:
    mean_a, mean_b = math.fsum(a) / len(a), math.fsum(b) / len(b)
    covariance = math.fsum((x - mean_a) * (y - mean_b) for x, y in zip(a, b))
    variances = (math.fsum((x - m) ** 2 for x in v) for v, m in ((a, mean_a), (b, mean_b)))
    return covariance / math.sqrt(math.prod(variances))


def ssim_by_loops(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004, window by window."""
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    span = max(a.max(), b.max()) - min(a.min(), b.min())
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    weights = np.array(
        [[math.exp(-(y**2 + x**2) / (2 * 1.5**2)) for x in range(-5, 6)] for y in range(-5, 6)]
    )
    weights /= weights.sum()
    found = []
    for top in range(len(a) - 10):
        for left in range(len(a[0]) - 10):
            one, other = (v[top : top + 11, left : left + 11] for v in (a, b))
            mean_a, mean_b = (weights * one).sum(), (weights * other).sum()
            var_a = (weights * (one - mean_a) ** 2).sum()
            var_b = (weights * (other - mean_b) ** 2).sum()
            both = (weights * (one - mean_a) * (other - mean_b)).sum()
            found.append(
                (2 * mean_a * mean_b + c1)
                * (2 * both + c2)
                / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
            )
    return float(np.mean(found))


SHAPES = st.tuples(st.integers(11, 14), st.integers(11, 14))


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 1.0, 1e6]), st.booleans())
def test_all_agree_with_loops(shape: tuple[int, int], seed: int, scale: float, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    a, noise = rng.standard_normal((2, *shape))
    b = scale * (a + noise)
    if ties:
        a, b = np.round(a), np.round(2 * b / scale)
    assert spearman(a, b) == pytest.approx(correlation(ranks(a), ranks(b)), abs=1e-12)
    absolute = correlation(ranks(np.abs(a)), ranks(np.abs(b)))
    assert spearman_absolute(a, b) == pytest.approx(absolute, abs=1e-12)
    assert ssim(a, b) == pytest.approx(ssim_by_loops(a, b), abs=1e-10)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_a_positive_factor_changes_nothing(name: str) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 12, 13))
    similarity = SIMILARITIES[name]
    assert similarity(a, 7 * a) == pytest.approx(1.0)
    assert similarity(a, b) == pytest.approx(similarity(a, 1e-5 * b))
    assert similarity(a, b) == pytest.approx(similarity(b, a))
    assert abs(similarity(a, b)) < 0.3


def test_signs_count_unless_they_are_left_out() -> None:
    a = np.random.default_rng(1).standard_normal((12, 12))
    assert spearman(a, -a) == pytest.approx(-1.0)
    assert spearman_absolute(a, -a) == pytest.approx(1.0)
    assert abs(ssim(a, -a)) < 0.3  # not -1: means and deviations both change their sign


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_constant_map_is_like_none(name: str, value: float) -> None:
    a, constant = np.random.default_rng(2).standard_normal((12, 12)), np.full((12, 12), value)
    similarity = SIMILARITIES[name]
    for pair in ((a, constant), (constant, a), (constant, constant)):
        assert math.isnan(similarity(*pair))


@pytest.mark.parametrize("name", SIMILARITIES)
def test_what_does_not_fit_is_refused(name: str) -> None:
    similarity, a = SIMILARITIES[name], np.random.default_rng(3).standard_normal((12, 12))
    with pytest.raises(ValueError, match=r"shape of first, \(12, 12\), not \(12, 11\)"):
        similarity(a, a[:, 1:])
    with pytest.raises(ValueError, match="second must be finite"):
        similarity(a, np.where(a == a[0, 0], math.nan, a))
    with pytest.raises(ValueError, match=r"first must have shape .* not \(12,\)"):
        similarity(a[0], a)


def test_a_map_smaller_than_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 11 x 11 for SSIM, not \(10, 12\)"):
        ssim(np.eye(10, 12), np.eye(10, 12))


@pytest.mark.parametrize(("function", "package"), [(spearman, "scipy"), (ssim, "skimage")])
def test_a_missing_package_is_named(function, package: str, monkeypatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(relprop.optional, "import_module", missing)
    with pytest.raises(ImportError, match=rf"needs {package}: pip install 'relprop\[evaluation\]'"):
        function(np.eye(12), np.eye(12))
