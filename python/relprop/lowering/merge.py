"""Where branches meet: sum, product, maximum, concatenation."""

from __future__ import annotations

import math

from relprop.factors import shares
from relprop.graph import (
    Add,
    Concat,
    Maximum,
    Mul,
    Node,
)
from relprop.lowering.lowering import Lowering, Table


def _add(lowering: Lowering, node: Node) -> int:
    branches = [lowering.broadcast(node, source) for source in node.inputs]
    needs_value = not lowering.gradient(node.name)
    clamp = lowering.clamp(node, needs_value=needs_value, relu_alone=True)
    return lowering.plan.add(
        branches, lowering.epsilon(node), clamp is not None, lowering.idle(node)
    )


def _mul(lowering: Lowering, node: Node) -> int:
    first, second = (lowering.broadcast(node, source) for source in node.inputs)
    shared = shares(lowering.graph, lowering.rules[node.name], node)
    return lowering.plan.mul(first, second, shared, lowering.idle(node))


def _maximum(lowering: Lowering, node: Node) -> int:
    branches = [lowering.broadcast(node, source) for source in node.inputs]
    return lowering.plan.maximum(branches, lowering.idle(node))


def _concat(lowering: Lowering, node: Node) -> int:
    assert isinstance(node.operator, Concat)
    layout = lowering.layouts[node.name]
    # The axis as it is stored, and how often it is run through per sample.
    axis = (node.operator.axis - layout.channels_last) % len(node.shape)
    return lowering.plan.concat(
        lowering.inputs(node),
        math.prod(layout.order[:axis]),
        layout.extent,
        channels_first=layout.channels_last,
        blocks=lowering.idle(node),
    )


TABLE: Table = {
    Add: _add,
    Mul: _mul,
    Maximum: _maximum,
    Concat: _concat,
}
