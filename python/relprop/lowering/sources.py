"""Where values enter a Plan: inputs, constants, rows that ids name."""

from __future__ import annotations

import math

import numpy as np

from relprop.graph import Constant, Embedding, Input, Mask, Node
from relprop.layouts import Layout
from relprop.lowering.lowering import Lowering, Table


def _input(lowering: Lowering, node: Node) -> int:
    layout = lowering.layouts[node.name]
    return lowering.plan.input(layout.extent, channels_first=layout.channels_last)


def _constant(lowering: Lowering, node: Node) -> int:
    assert isinstance(node.operator, Constant)
    layout = lowering.layouts[node.name]
    value = layout.stored(node.operator.value).astype(np.float32)
    return lowering.plan.constant(value, layout.extent, channels_first=layout.channels_last)


def _embedding(lowering: Lowering, node: Node) -> int:
    """Rows looked up in the Graph's order of the ids, each with its features innermost."""
    assert isinstance(node.operator, Embedding | Mask)
    table = node.operator
    weight = table.values[:, None] if isinstance(table, Mask) else table.weight
    before, after = lowering.layouts[node.inputs[0]], lowering.layouts[node.name]
    ids, features = math.prod(before.shape), weight.shape[1]
    lowering.count_places(node, *node.shape)
    source, places = lowering.inputs(node)[0], before.places().reshape(ids)
    if not np.array_equal(places, np.arange(ids)):
        source = lowering.move(source, places, 0.0, Layout((ids,), False))
    weight = np.ascontiguousarray(weight, np.float32)
    made = lowering.plan.embedding(source, weight, lowering.blocks(node))
    if not after.channels_last:
        return made
    return lowering.move(made, np.arange(ids * features).reshape(node.shape), 0.0, after)


TABLE: Table = {
    Input: _input,
    Constant: _constant,
    Embedding: _embedding,
    Mask: _embedding,
}
