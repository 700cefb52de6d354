"""What only moves values: slices, pads, reshapes, permutations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from relprop.graph import Identity, Node, Pad, Permute, Reshape, Slice
from relprop.lowering.lowering import Lowering, Table


def _slice(lowering: Lowering, node: Node) -> int:
    cut = node.operator
    assert isinstance(cut, Slice)
    where = (slice(None),) * cut.axis + (slice(cut.start, cut.stop, cut.step),)
    return _rearranged(lowering, node, lambda places: places[where])


def _pad(lowering: Lowering, node: Node) -> int:
    assert isinstance(node.operator, Pad)
    lowering.count_places(node, *node.shape)
    places = lowering.layouts[node.inputs[0]].places()
    index = np.pad(places, node.operator.pads, constant_values=-1)
    layout = lowering.layouts[node.name]
    return lowering.move(
        lowering.inputs(node)[0], index, node.operator.value, layout, lowering.blocks(node)
    )


def _reshape(lowering: Lowering, node: Node) -> int:
    return _rearranged(lowering, node, lambda places: places.reshape(node.shape))


def _permute(lowering: Lowering, node: Node) -> int:
    permute = node.operator
    assert isinstance(permute, Permute)
    return _rearranged(lowering, node, lambda places: places.transpose(permute.axes))


def _identity(lowering: Lowering, node: Node) -> int:
    return _rearranged(lowering, node, lambda places: places)


def _rearranged(
    lowering: Lowering, node: Node, change: Callable[[NDArray[np.int32]], NDArray[np.int32]]
) -> int:
    """The node's only input with its elements placed as ``change`` places theirs."""
    before = lowering.layouts[node.inputs[0]]
    lowering.count_places(node, *before.shape)
    return lowering.arrange(lowering.inputs(node)[0], before, change(before.places()), node)


TABLE: Table = {
    Slice: _slice,
    Pad: _pad,
    Reshape: _reshape,
    Permute: _permute,
    Identity: _identity,
}
