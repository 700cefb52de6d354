"""Functions of single values: activations and clips."""

from __future__ import annotations

import numpy as np

from relprop.graph import Activation, Clip, Node, PReLU, clip_bounds
from relprop.lowering.lowering import Lowering, Table


def _activation(lowering: Lowering, node: Node) -> int:
    operator, bounds = node.operator, clip_bounds(node.operator)
    source, blocks = lowering.inputs(node)[0], lowering.idle(node)
    rule = lowering.activation_rule(node.name)
    if bounds is not None:
        clamped = node.inputs[0] in lowering.fused
        return lowering.plan.clip(source, *bounds, rule, clamped, blocks)
    assert isinstance(operator, Activation)
    return lowering.plan.activation(source, operator.function, operator.parameter, rule, blocks)


def _prelu(lowering: Lowering, node: Node) -> int:
    assert isinstance(node.operator, PReLU)
    slope = node.operator.slope
    layout = lowering.layouts[node.name]
    if slope.size > 1 and len(node.shape) > 1 and not layout.channels_last:
        each = slope.reshape(-1, *(1,) * (len(node.shape) - 1))
        slope = layout.stored(np.broadcast_to(each, node.shape))
    slope = np.ascontiguousarray(slope, np.float32)
    rule = lowering.activation_rule(node.name)
    return lowering.plan.prelu(lowering.inputs(node)[0], slope, rule, lowering.idle(node))


TABLE: Table = {
    Activation: _activation,
    Clip: _activation,
    PReLU: _prelu,
}
