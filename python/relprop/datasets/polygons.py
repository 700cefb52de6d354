"""Polygons as pixels: those whose centre lies inside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_CROSSINGS = 20_000_000
"""Lines of a polygon times the rows they cross; more are refused before memory is taken."""


def filled(polygons: Sequence[Sequence[float]], height: int, width: int) -> NDArray[np.bool_]:
    """Return the pixels of any of the polygons, bool (height, width).

    A polygon is a closed line x, y, x, y, ...; what it goes around twice is outside.

    Raises
    ------
    ValueError
        If a polygon has no three corners, is not finite or is absurdly long.
    """
    pixels = np.zeros((height, width), bool)
    for polygon in polygons:
        pixels |= _inside(_corners(polygon), height, width)
    return pixels


def _corners(polygon: Sequence[float]) -> NDArray[np.float64]:
    if len(polygon) < 6 or len(polygon) % 2:
        raise ValueError(f"a polygon has at least 3 corners x, y, not {len(polygon)} numbers.")
    corners = np.asarray(polygon, np.float64).reshape(-1, 2)
    if not (np.abs(corners) < 1e9).all():
        raise ValueError("the corners of a polygon must be finite and below 1e9.")
    return corners


def _inside(corners: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """Walk each row from the left: every line that is crossed changes between out and in."""
    (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, axis=0).T
    # a line crosses the rows whose centre lies in [upper end, lower end)
    first = np.ceil(np.clip(np.minimum(y0, y1), 0, height) - 0.5).astype(np.int64)
    rows = np.ceil(np.clip(np.maximum(y0, y1), 0, height) - 0.5).astype(np.int64) - first
    if rows.sum() > MAX_CROSSINGS:
        raise ValueError(f"a polygon of {len(corners)} corners crosses too many rows.")
    line = np.repeat(np.arange(len(rows)), rows)
    y = np.arange(len(line)) - np.repeat(np.cumsum(rows) - rows, rows) + first[line]
    part = (y + 0.5 - y0[line]) / (y1 - y0)[line]
    x = x0[line] + part * (x1 - x0)[line]
    changes = np.zeros((height, width + 1), np.uint8)
    column = np.ceil(np.clip(x, 0, width) - 0.5).astype(np.int64)
    np.bitwise_xor.at(changes, (y, column), np.uint8(1))
    return np.bitwise_xor.accumulate(changes[:, :width], axis=1).astype(bool)
