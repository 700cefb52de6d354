"""Polygons as pixels, against a plain test of each pixel's centre."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relprop.datasets import polygons
from relprop.datasets.polygons import filled

CORNERS = st.lists(st.tuples(st.floats(-3, 12), st.floats(-3, 12)), min_size=3, max_size=7)


def is_inside(x: float, y: float, corners: list[tuple[float, float]]) -> bool:
    inside = False
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1]):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x:
            inside = not inside
    return inside


@given(CORNERS)
def test_a_pixel_belongs_to_the_polygon_that_holds_its_centre(
    corners: list[tuple[float, float]],
) -> None:
    found = filled([[side for corner in corners for side in corner]], 9, 7)
    expected = [[is_inside(x + 0.5, y + 0.5, corners) for x in range(7)] for y in range(9)]
    np.testing.assert_array_equal(found, expected)


def test_several_polygons_are_one_mask() -> None:
    found = filled([(0, 0, 3, 0, 3, 2, 0, 2), (2, 1, 4, 1, 4, 3, 2, 3)], 3, 4)
    assert found.astype(int).tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("polygon", "text"),
    [
        ((0, 0, 1, 1), "at least 3 corners x, y, not 4 numbers"),
        ((0, 0, 1, 1, 2, 2, 3), "not 7 numbers"),
        ((0, 0, 1, 1, 2, float("nan")), "must be finite"),
        ((0, 0, 1, 1, 2, 1e300), "must be finite and below"),
    ],
)
def test_what_is_no_polygon(polygon: tuple[float, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        filled([polygon], 4, 4)


def test_a_polygon_that_would_take_all_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polygons, "MAX_CROSSINGS", 30)
    with pytest.raises(ValueError, match="4 corners crosses too many rows"):
        filled([(0, 0, 1, 20, 2, 0, 3, 20)], 20, 4)
