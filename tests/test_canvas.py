"""A map on a canvas of another size: each pixel's relevance is shared out by area."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from relprop import _core
from relprop.aggregation import on_canvas


def shares(size: int, cells: int) -> NDArray[np.float64]:
    """Which part of each pixel lies in each cell, (cells, size)."""
    part = np.zeros((cells, size))
    for cell in range(cells):
        for pixel in range(size):
            low = max(cell / cells, pixel / size)
            high = min((cell + 1) / cells, (pixel + 1) / size)
            part[cell, pixel] = max(0.0, high - low) * size
    return part


@given(*[st.integers(1, 30)] * 4)
def test_every_pixel_is_shared_out(h: int, w: int, rows: int, columns: int) -> None:
    relevance = np.random.default_rng(0).standard_normal((h, w)).astype(np.float32)
    expected = shares(h, rows) @ relevance.astype(np.float64) @ shares(w, columns).T
    np.testing.assert_allclose(on_canvas(relevance, (rows, columns)), expected, atol=1e-12)


@given(*[st.integers(1, 40)] * 4)
def test_a_canvas_keeps_the_sum_and_a_constant(h: int, w: int, rows: int, columns: int) -> None:
    relevance = np.random.default_rng(0).random((h, w), np.float32)
    stretched = on_canvas(relevance, (rows, columns))
    assert stretched.shape == (rows, columns)
    assert stretched.sum() == pytest.approx(relevance.sum(dtype=np.float64), rel=1e-12)
    ones = on_canvas(np.ones((h, w), np.float32), (rows, columns))
    np.testing.assert_allclose(ones, h * w / (rows * columns), rtol=1e-12)


def test_a_canvas_of_twice_the_size_halves_each_pixel_both_ways() -> None:
    assert on_canvas(np.array([[4.0, 8.0]], np.float32), (2, 4)).tolist() == [[1, 1, 2, 2]] * 2


def test_a_transposed_map_is_the_transposed_result() -> None:
    relevance = np.random.default_rng(0).random((7, 5), np.float32)
    result = on_canvas(relevance.T, (3, 4))
    np.testing.assert_allclose(result, on_canvas(relevance, (4, 3)).T, rtol=1e-14)


def test_what_the_core_refuses() -> None:
    good = np.ones((3, 4), np.float32)
    with pytest.raises(ValueError, match=r"map must have a height and a width, not shape \(3,\)"):
        _core.on_canvas(np.ones(3, np.float32), 1, 1)
    with pytest.raises(ValueError, match="map must have a height and a width"):
        _core.on_canvas(np.ones((0, 3), np.float32), 1, 1)
    with pytest.raises(ValueError, match="rows and columns must be >= 1, not 0 and 2"):
        _core.on_canvas(good, 0, 2)
    with pytest.raises(TypeError, match="float64"):
        _core.on_canvas(good.astype(np.float64), 2, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="contiguous"):
        _core.on_canvas(good[:, ::2], 2, 2)
