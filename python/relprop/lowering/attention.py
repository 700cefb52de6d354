"""What attention is made of: matrix products of two branches, and softmax between them."""

from __future__ import annotations

import math

from relprop import rules as r
from relprop.factors import shares
from relprop.graph import MatMul, Node, Softmax
from relprop.lowering.lowering import Lowering, Table


def _mat_mul(lowering: Lowering, node: Node) -> int:
    product = node.operator
    assert isinstance(product, MatMul)
    left, right = (lowering.in_rows(source) for source in node.inputs)
    *outer, height, width = node.shape
    return lowering.out_of_rows(
        node,
        lambda made: lowering.plan.mat_mul(
            left,
            right,
            math.prod(outer),
            (height, lowering.graph[node.inputs[0]].shape[-1], width),
            product.transposed,
            shares(lowering.graph, lowering.rules[node.name], node),
            lowering.epsilon(node) or 1e-6,  # not asked for under the gradient
            made.extent,
            channels_first=made.channels_last,
            blocks=lowering.idle(node),
        ),
    )


def _softmax(lowering: Lowering, node: Node) -> int:
    """Along a last axis, to which the one at hand is brought."""
    softmax = node.operator
    assert isinstance(softmax, Softmax)
    axis = softmax.axis
    order = (*(a for a in range(len(node.shape)) if a != axis), axis)
    source = lowering.in_rows(node.inputs[0], order)
    return lowering.out_of_rows(
        node,
        lambda made: lowering.plan.softmax(
            source,
            node.shape[axis],
            "taylor" if isinstance(lowering.rules[node.name], r.Taylor) else "gradient",
            made.extent,
            channels_first=made.channels_last,
            blocks=lowering.idle(node),
        ),
        tuple(node.shape[a] for a in order),
        tuple(sorted(range(len(order)), key=order.__getitem__)),
    )


TABLE: Table = {
    MatMul: _mat_mul,
    Softmax: _softmax,
}
