"""Normalisation: batch, layer, group and local response norm."""

from __future__ import annotations

import math

import numpy as np

from relprop import rules as r
from relprop.graph import Array, BatchNorm, GroupNorm, LayerNorm, LocalResponseNorm, Node
from relprop.lowering.lowering import Lowering, Table


def _batch_norm(lowering: Lowering, node: Node) -> int:
    norm = node.operator
    assert isinstance(norm, BatchNorm)
    return _affine(lowering, node, lowering.inputs(node)[0], norm.scale, norm.shift)


def _affine(lowering: Lowering, node: Node, source: int, scale: Array, shift: Array) -> int:
    """``scale * x + shift`` per channel of ``source``, which is stored as the node is."""
    if len(node.shape) > 4:
        raise ValueError(
            f"node {node.name!r} ({node.type}): the shape must be (features,) or (channels, ...) "
            f"with at most three more axes, not {node.shape}."
        )
    return lowering.plan.batch_norm(
        source,
        np.ascontiguousarray(scale, np.float32),
        np.ascontiguousarray(shift, np.float32),
        lowering.epsilon(node),
        passes=isinstance(lowering.rules[node.name], r.Pass),
        blocks=lowering.idle(node),
    )


def _layer_norm(lowering: Lowering, node: Node) -> int:
    norm = node.operator
    assert isinstance(norm, LayerNorm)
    width, blocks = norm.weight.size, lowering.idle(node)
    return _by_rows(lowering, node, norm, width, norm.weight, norm.bias, norm.centred, blocks)


def _group_norm(lowering: Lowering, node: Node) -> int:
    """Each group a row of a layer norm, then scale and shift per channel."""
    norm = node.operator
    assert isinstance(norm, GroupNorm)
    made = _by_rows(lowering, node, norm, math.prod(node.shape) // norm.groups)
    return _affine(lowering, node, made, norm.weight, norm.bias)


def _by_rows(
    lowering: Lowering,
    node: Node,
    norm: LayerNorm | GroupNorm,
    width: int,
    weight: Array | None = None,
    bias: Array | None = None,
    centred: bool = True,
    blocks: bool = False,
) -> int:
    """Rows of ``width`` neighbours normalised, in the node's layout."""
    source = lowering.in_rows(node.inputs[0])
    weight, bias = (
        None if values is None else np.ascontiguousarray(values, np.float32).ravel()
        for values in (weight, bias)
    )
    return lowering.out_of_rows(
        node,
        lambda made: lowering.plan.layer_norm(
            source,
            width,
            weight,
            bias,
            norm.epsilon,
            centred,
            lowering.epsilon(node),
            made.extent,
            channels_first=made.channels_last,
            blocks=blocks,
        ),
    )


def _local_response_norm(lowering: Lowering, node: Node) -> int:
    norm = node.operator
    assert isinstance(norm, LocalResponseNorm)
    taylor = isinstance(lowering.rules[node.name], r.Taylor)
    return lowering.plan.local_response_norm(
        lowering.inputs(node)[0],
        norm.within_channel,
        norm.size,
        norm.alpha,
        norm.beta,
        norm.k,
        rule="gradient" if lowering.gradient(node.name) else "taylor" if taylor else "pass",
        blocks=lowering.idle(node),
    )


TABLE: Table = {
    BatchNorm: _batch_norm,
    LayerNorm: _layer_norm,
    GroupNorm: _group_norm,
    LocalResponseNorm: _local_response_norm,
}
