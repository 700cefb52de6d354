"""Images of another size: a move of nearest pixels, or a mean of four."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from relprop.graph import Node, UpsampleBilinear2d, UpsampleNearest2d
from relprop.lowering.lowering import Lowering, Table


def _upsample_nearest(lowering: Lowering, node: Node) -> int:
    up = node.operator
    assert isinstance(up, UpsampleNearest2d)
    lowering.count_places(node, *node.shape)
    places = lowering.layouts[node.inputs[0]].places()
    rows, columns = (
        np.minimum(np.floor(np.arange(size) * ratio).astype(np.int64), length - 1)
        for size, ratio, length in zip(up.size, up.ratio, places.shape[1:])
    )
    index = places[:, rows[:, None], columns]
    layout = lowering.layouts[node.name]
    return lowering.move(lowering.inputs(node)[0], index, 0.0, layout, lowering.idle(node))


def _upsample_bilinear(lowering: Lowering, node: Node) -> int:
    up = node.operator
    assert isinstance(up, UpsampleBilinear2d)
    lowering.count_places(node, 4, *up.size)
    _, height, width = lowering.graph[node.inputs[0]].shape
    rows, by_row = _between(up.size[0], up.ratio[0], height, up.align_corners)
    columns, by_column = _between(up.size[1], up.ratio[1], width, up.align_corners)
    index = rows[:, None, :, None] * width + columns[None, :, None, :]
    weight = by_row[:, None, :, None] * by_column[None, :, None, :]
    return lowering.plan.resample(
        lowering.inputs(node)[0],
        index.reshape(-1, 4).astype(np.int32),
        weight.reshape(-1, 4).astype(np.float32),
        lowering.layouts[node.name].extent,
        lowering.epsilon(node),
        lowering.idle(node),
    )


def _between(
    size: int, ratio: float, length: int, align_corners: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Along one axis the two inputs on each side of every output, and their weights."""
    at = np.arange(size, dtype=np.float64)
    at = at * ratio if align_corners else np.maximum((at + 0.5) * ratio - 0.5, 0.0)
    before = np.minimum(np.floor(at).astype(np.int64), length - 1)
    behind = np.minimum(before + 1, length - 1)
    part = np.clip(at - before, 0.0, 1.0)
    return np.stack([before, behind], axis=1), np.stack([1 - part, part], axis=1)


TABLE: Table = {
    UpsampleNearest2d: _upsample_nearest,
    UpsampleBilinear2d: _upsample_bilinear,
}
