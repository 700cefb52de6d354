"""Where branches meet: sum, product, maximum, concatenation."""

from __future__ import annotations

import math

from relprop import rules as r
from relprop.graph import (
    Activation,
    Add,
    Concat,
    Constant,
    Identity,
    Maximum,
    Mul,
    Node,
    Permute,
    Reshape,
    Slice,
)
from relprop.lowering.lowering import Lowering, Table


def _add(lowering: Lowering, node: Node) -> int:
    branches = [lowering.broadcast(node, source) for source in node.inputs]
    needs_value = not lowering.gradient(node.name)
    clamp = lowering.clamp(node, needs_value=needs_value, relu_alone=True)
    return lowering.plan.add(
        branches, lowering.epsilon(node), clamp is not None, lowering.blocks(node)
    )


def _mul(lowering: Lowering, node: Node) -> int:
    first, second = (lowering.broadcast(node, source) for source in node.inputs)
    return lowering.plan.mul(first, second, _shares(lowering, node), lowering.blocks(node))


def _shares(lowering: Lowering, node: Node) -> tuple[float, float] | None:
    """What each factor of a product takes of its relevance; None: the gradient."""
    rule = lowering.rules[node.name]
    if lowering.gradient(node.name):
        return None
    constant = [isinstance(lowering.graph[s].operator, Constant) for s in node.inputs]
    if any(constant):
        return float(not constant[0]), float(constant[0])
    if isinstance(rule, r.SignalTakesAll):
        if rule.signal is not None:
            return float(rule.signal == 0), float(rule.signal == 1)
        gate = [_is_gate(lowering, source) for source in node.inputs]
        if gate[0] != gate[1]:
            return float(gate[1]), float(gate[0])
    return 0.5, 0.5


def _is_gate(lowering: Lowering, name: str) -> bool:
    """Whether a factor is a sigmoid, whatever moved its values since."""
    node = lowering.graph[name]
    while isinstance(node.operator, Reshape | Permute | Slice | Identity):
        node = lowering.graph[node.inputs[0]]
    return isinstance(node.operator, Activation) and node.operator.function in (
        "sigmoid",
        "hard_sigmoid",
    )


def _maximum(lowering: Lowering, node: Node) -> int:
    branches = [lowering.broadcast(node, source) for source in node.inputs]
    return lowering.plan.maximum(branches, lowering.blocks(node))


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
        blocks=lowering.blocks(node),
    )


TABLE: Table = {
    Add: _add,
    Mul: _mul,
    Maximum: _maximum,
    Concat: _concat,
}
