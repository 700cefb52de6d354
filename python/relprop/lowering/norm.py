"""Batch norm and local response normalisation."""

from __future__ import annotations

import numpy as np

from relprop import rules as r
from relprop.graph import BatchNorm, LocalResponseNorm, Node
from relprop.lowering.lowering import Lowering, Table


def _batch_norm(lowering: Lowering, node: Node) -> int:
    norm = node.operator
    assert isinstance(norm, BatchNorm)
    if len(node.shape) > 4:
        raise ValueError(
            f"node {node.name!r} (BatchNorm): the shape must be (features,) or (channels, ...) "
            f"with at most three more axes, not {node.shape}."
        )
    return lowering.plan.batch_norm(
        lowering.inputs(node)[0],
        np.ascontiguousarray(norm.scale, np.float32),
        np.ascontiguousarray(norm.shift, np.float32),
        lowering.epsilon(node),
        passes=isinstance(lowering.rules[node.name], r.Pass),
        blocks=lowering.blocks(node),
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
        blocks=lowering.blocks(node),
    )


TABLE: Table = {
    BatchNorm: _batch_norm,
    LocalResponseNorm: _local_response_norm,
}
