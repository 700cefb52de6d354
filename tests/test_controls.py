"""The controls: uniform draws and the edges of the image."""

from __future__ import annotations

import numpy as np
import pytest

from cases import numbers
from method_networks import network
from relprop import Explainer
from relprop.methods import Random, Sobel


def test_draws_are_uniform() -> None:
    _, model, _ = network("branches")
    x = numbers(np.random.default_rng(0), (60, 3, 14, 14))
    values = Explainer(model, "random")(x).relevance.ravel()
    assert values.min() >= 0
    assert values.max() < 1
    counts, _ = np.histogram(values, bins=20, range=(0, 1))
    expected = values.size / 20
    assert ((counts - expected) ** 2 / expected).sum() < 50  # of 19 degrees of freedom: p < 2e-4


def test_draws_belong_to_the_image_and_the_seed() -> None:
    _, model, x = network("branches")
    one, other = (Explainer(model, "random", seed=seed)(x).relevance for seed in (0, 1))
    assert not np.isclose(one, other).mean() > 0.01
    assert np.unique(one).size > 0.99 * one.size
    again = Explainer(model, "random")(x[::-1]).relevance
    np.testing.assert_array_equal(again[::-1], one)
    twice = Explainer(model, "random")(np.stack([x[0], x[0]])).relevance
    np.testing.assert_array_equal(twice[0], twice[1])


def edges(grey: np.ndarray) -> np.ndarray:
    """Sobel's filter, pixel by pixel."""
    height, width = grey.shape
    at = np.pad(grey, 1, mode="symmetric")
    found = np.zeros_like(grey)
    for y in range(height):
        for x in range(width):
            down = across = 0.0
            for k, weight in ((-1, 0.25), (0, 0.5), (1, 0.25)):
                down += weight * (at[y + 2, x + 1 + k] - at[y, x + 1 + k])
                across += weight * (at[y + 1 + k, x + 2] - at[y + 1 + k, x])
            found[y, x] = ((down**2 + across**2) / 2) ** 0.5
    return found


def test_sobel_is_the_filter_of_the_channels_sum() -> None:
    _, model, x = network("branches")
    found = Explainer(model, "sobel")(x).relevance
    for image, one in zip(x, found):
        expected = edges(image.sum(0, dtype=np.float64))
        np.testing.assert_allclose(one[0], expected, rtol=1e-5, atol=1e-6)


def test_sobel_is_scikit_images() -> None:
    filters = pytest.importorskip("skimage.filters")
    _, model, x = network("branches")
    found = Explainer(model, "sobel")(x).relevance
    for image, one in zip(x, found):
        np.testing.assert_allclose(
            one[0], filters.sobel(image.sum(0, dtype=np.float64)), rtol=1e-5, atol=1e-6
        )


def test_a_constant_image_has_no_edges() -> None:
    _, model, x = network("branches")
    assert not Explainer(model, "sobel")(np.ones_like(x)).relevance.any()


def test_what_they_are() -> None:
    assert Random(3) == Random(3) != Random(4)
    assert Sobel() == Sobel()
    with pytest.raises(ValueError, match="seed must be at least 0, not -2"):
        Random(-2)
