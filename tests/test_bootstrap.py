"""Bootstrap and sign flips: against loops, and draws that are multinomial whatever the chunks."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relprop.evaluation.bootstrap import CHUNK, Resampling, difference, estimate


def drawn(images: int, resamples: int) -> Any:
    """How often each image is in each replicate: a column that is one at an image counts it."""
    resampling = Resampling(images, images, resamples=resamples)
    resampling.add(np.eye(images))
    return resampling._resampled


@pytest.mark.parametrize("images", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 50])
def test_replicates_draw_as_many_images_as_there_are(images: int) -> None:
    counts = drawn(images, 50)
    assert np.array_equal(counts, counts.round()) and (counts >= 0).all()
    assert (counts.sum(axis=1) == images).all()


def test_draws_are_multinomial_across_chunks() -> None:
    """Mean 1, variance 1 - 1/n, covariance -1/n, the same within a chunk and between two."""
    n, resamples = 2 * CHUNK + 44, 4000
    counts = drawn(n, resamples)
    assert np.abs(counts.mean(axis=0) - 1).max() < 5 / resamples**0.5
    assert np.abs(counts.var(axis=0).mean() - (1 - 1 / n)) < 0.01
    # the variance of a sum over m images is m (1 - m / n), whatever the covariances of two
    for part in (slice(0, 60), slice(CHUNK - 40, CHUNK + 40), slice(0, CHUNK), slice(200, n)):
        m = len(range(*part.indices(n)))
        variance = counts[:, part].sum(axis=1).var()
        assert variance == pytest.approx(m * (1 - m / n), rel=0.12)  # 5 sigma: 5 sqrt(2 / 4000)
    zero = np.mean(counts == 0)
    assert zero == pytest.approx((1 - 1 / n) ** n, abs=0.005)


def test_intervals_are_those_of_plain_bootstrap() -> None:
    rng = np.random.default_rng(0)
    values = rng.exponential(size=CHUNK + 70)
    means = [rng.choice(values, len(values)).mean() for _ in range(10_000)]
    found = estimate(values)
    assert found.mean == pytest.approx(sum(values) / len(values))
    expected = np.quantile(means, [0.025, 0.975])
    spread = np.std(means)
    np.testing.assert_allclose([found.low, found.high], expected, atol=0.12 * spread)
    narrow = estimate(values, level=0.5)
    np.testing.assert_allclose(
        [narrow.low, narrow.high], np.quantile(means, [0.25, 0.75]), atol=0.06 * spread
    )


def test_intervals_cover_the_mean_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        found = estimate(rng.standard_normal(40), resamples=400, seed=seed)
        covered += int(found.low <= 0 <= found.high)
    assert 175 <= covered <= 199  # 95 % less what percentiles lose at n = 40


@pytest.mark.parametrize("images", [1, 2, 5, 8])
def test_p_values_of_few_images_are_exact(images: int) -> None:
    rng = np.random.default_rng(images)
    a, b = rng.standard_normal((2, images))
    a += 0.8
    differences = (a - b).tolist()
    observed = abs(sum(differences))
    extreme = total = 0
    for signs in product((1, -1), repeat=images):
        total += 1
        flipped = abs(sum(sign * d for sign, d in zip(signs, differences)))
        extreme += flipped >= observed * (1 - 1e-12)
    assert difference(a, b).p_value == extreme / total


def test_p_values_of_many_images_are_near_the_exact_ones() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((2, 12))
    a += 0.6
    exact = float(difference(a, b, resamples=4096).p_value)
    assert 0.02 < exact < 0.7
    drawn = float(difference(a, b, resamples=4095).p_value)
    assert drawn == pytest.approx(exact, abs=5 * (exact / 4095) ** 0.5)


def test_p_values_are_uniform_where_nothing_differs() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((2, 60, 300))
    p = difference(a, b, resamples=999).p_value
    assert p.shape == (300,)
    for level in (0.1, 0.5):
        assert np.mean(p <= level) == pytest.approx(
            level, abs=5 * (level * (1 - level) / 300) ** 0.5
        )
    assert p.min() >= 1 / 1000


def test_differences_are_paired() -> None:
    rng = np.random.default_rng(3)
    common = 100 * rng.standard_normal(200)
    a, b = common + 0.5 + 0.1 * rng.standard_normal(200), common
    found = difference(a, b)
    assert found.low < found.mean < found.high and found.high - found.low < 0.1
    assert found.mean == pytest.approx(0.5, abs=0.05) and found.p_value == pytest.approx(
        1e-4, rel=0.01
    )
    alone = estimate(a - b)
    np.testing.assert_allclose([found.low, found.high], [alone.low, alone.high], rtol=1e-9)
    other = difference(b, a)
    np.testing.assert_allclose([-other.high, -other.low], [found.low, found.high], rtol=1e-12)
    assert other.p_value == found.p_value


def test_the_same_has_no_difference() -> None:
    values = np.random.default_rng(4).standard_normal(30)
    found = difference(values, values)
    assert (found.mean, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_bands_are_intervals_point_by_point() -> None:
    values = np.random.default_rng(6).standard_normal((30, 2, 4))
    band = estimate(values, resamples=500)
    assert band.mean.shape == band.low.shape == (2, 4)
    for row in range(2):
        for column in range(4):
            point = estimate(values[:, row, column], resamples=500)
            for name in ("mean", "low", "high"):
                expected = getattr(point, name)
                np.testing.assert_allclose(getattr(band, name)[row, column], expected, rtol=1e-12)
    found = difference(values, values[:, ::-1], resamples=500)
    assert found.p_value.shape == (2, 4)
    np.testing.assert_allclose(found.p_value[0], found.p_value[1])


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3 * CHUNK), st.lists(st.integers(1, 200), max_size=6), st.integers(0, 99))
def test_the_readers_chunks_show_nowhere(images: int, cuts: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((images, 2))
    whole = Resampling(images, 2, resamples=30, seed=seed)
    whole.add(values)
    parts = Resampling(images, 2, resamples=30, seed=seed)
    at = 0
    for cut in [*cuts, images]:
        if len(rows := values[at : at + cut]):
            parts.add(rows if len(rows) > 1 else rows[0])
        at += cut
    one, other = whole.estimate(), parts.estimate()
    for name in ("low", "high"):
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)
    np.testing.assert_allclose(one.mean, values.mean(axis=0), rtol=1e-12, atol=1e-14)
    assert whole.difference(0, 1).p_value == parts.difference(0, 1).p_value


def test_one_image_has_no_interval() -> None:
    found = estimate([3.0])
    assert found.mean == 3 and np.isnan(found.low) and np.isnan(found.high)
    assert difference([3.0], [1.0]).p_value == 1


def test_seeds() -> None:
    values = np.random.default_rng(8).standard_normal(50)
    assert estimate(values).low == estimate(values).low != estimate(values, seed=1).low


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: estimate([]), r"not shape \(0,\)"),
        (lambda: estimate(3.0), r"not shape \(\)"),
        (lambda: estimate([1.0, np.nan]), r"finite, not nan at \(1,\)"),
        (lambda: estimate([1.0, 2.0], level=1.0), "level must lie between 0 and 1, not 1"),
        (lambda: estimate([1.0], resamples=0), "resamples must be at least 1, not 0"),
        (lambda: difference([1.0, 2.0], [1.0]), "the same shape"),
        (lambda: Resampling(0, 1), "images must be at least 1, not 0"),
        (lambda: Resampling(1, 0), "columns must be at least 1, not 0"),
        (lambda: Resampling(2, 1).add([[1.0, 2.0]]), r"shape \(rows, 1\), not \(1, 2\)"),
        (lambda: Resampling(2, 1).add([[1.0], [np.inf]]), r"not inf \(image 1, column 0\)"),
        (lambda: Resampling(1, 1).add([[1.0], [2.0]]), "must be 1 in all, not 2"),
        (lambda: Resampling(2, 1).estimate(), "2 in all; 0 have come"),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
