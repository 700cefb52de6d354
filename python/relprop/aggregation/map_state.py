"""MapState: the average heatmap per class, on one canvas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relprop import _core
from relprop.aggregation.double_double import Float64
from relprop.aggregation.moments import Arrays, Moments, Summary
from relprop.aggregation.records import Record
from relprop.aggregation.states import State


class MapState(State):
    """Count, mean and variance of relevance at every place of a canvas, by true class.

    A map of another size is stretched to the canvas: each pixel's relevance goes to the cells that
    it overlaps, in proportion to the area, so that the sum stays what it was. Each class that was
    seen takes 32 bytes a place.
    """

    kind = "maps"

    def __init__(self, canvas: tuple[int, int]) -> None:
        height, width = canvas
        if height < 1 or width < 1:
            raise ValueError(f"canvas must be a height and a width >= 1, not {canvas}.")
        super().__init__(canvas=[height, width])
        self.canvas = (height, width)
        self._moments = Moments(self.canvas)

    def update(self, record: Record) -> None:
        self._moments.add((record.label,), on_canvas(record.map, self.canvas))

    def result(self) -> dict[int, Summary]:
        """Each true class's count, mean and variance, (H, W)."""
        return {group[0]: self._moments.over([group]) for group in self._moments.groups}

    def write(self, arrays: Arrays) -> Any:
        self._moments.write(arrays, "relevance")

    def read(self, arrays: Mapping[str, NDArray[Any]], content: Any) -> None:
        self._moments.read(arrays, "relevance")

    def _join(self, other: MapState) -> None:
        self._moments.merge(other._moments)


def on_canvas(map: NDArray[np.float32], canvas: tuple[int, int]) -> Float64:  # noqa: A002
    """Relevance (H, W) on a canvas of another size, with the same sum up to rounding."""
    if map.shape == canvas:
        return map.astype(np.float64)
    return _core.on_canvas(np.ascontiguousarray(map), *canvas)
