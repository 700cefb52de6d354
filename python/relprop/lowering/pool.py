"""Maxima and means over windows."""

from __future__ import annotations

import math

import numpy as np

from relprop import rules as r
from relprop.graph import AdaptiveAvgPool, AvgPool, MaxPool, Mean, Node, Padding, Sizes
from relprop.layouts import Extent, Layout
from relprop.lowering.lowering import Lowering, Table, deep


def _max_pool(lowering: Lowering, node: Node) -> int:
    pool = node.operator
    assert isinstance(pool, MaxPool)
    kind = "max_proportional" if isinstance(lowering.rules[node.name], r.Proportional) else "max"
    return _pool_step(
        lowering, node, kind, pool.kernel, pool.stride, pool.padding, pool.dilation, pool.ceil_mode
    )


def _average_pool(lowering: Lowering, node: Node) -> int:
    pool = node.operator
    assert isinstance(pool, AvgPool)
    return _pool_step(
        lowering,
        node,
        "average",
        pool.kernel,
        pool.stride,
        pool.padding,
        ceil_mode=pool.ceil_mode,
        count_include_pad=pool.count_include_pad,
        divisor=pool.divisor or 0,
    )


def _adaptive_pool(lowering: Lowering, node: Node) -> int:
    return _pool_step(lowering, node, "average", adaptive=True)


def _mean(lowering: Lowering, node: Node) -> int:
    """Mean over any axes: bring them together, then one window over all of them."""
    assert isinstance(node.operator, Mean)
    layout = lowering.layouts[node.inputs[0]]
    axes = node.operator.axes
    lowering.count_places(node, *layout.shape)
    rest = tuple(a for a in range(len(layout.shape)) if a not in axes)
    window = math.prod(layout.shape[a] for a in axes)
    kept = math.prod(layout.shape[a] for a in rest)
    together = Layout((kept, window), True)
    index = layout.places().transpose(*rest, *axes).reshape(together.shape)
    source = lowering.move(lowering.inputs(node)[0], index, 0.0, together)
    means = Layout((kept, 1), True)
    mean = _pool_step(
        lowering,
        node,
        "average",
        adaptive=True,
        source=source,
        from_image=together.extent,
        to_image=means.extent,
    )
    return lowering.arrange(mean, means, np.arange(kept).reshape(node.shape), node)


def _pool_step(
    lowering: Lowering,
    node: Node,
    kind: str,
    kernel: Sizes = (),
    stride: Sizes = (),
    padding: Padding = (),
    dilation: Sizes = (),
    ceil_mode: bool = False,
    adaptive: bool = False,
    count_include_pad: bool = False,
    divisor: int = 0,
    source: int | None = None,
    from_image: Extent | None = None,
    to_image: Extent | None = None,
) -> int:
    return lowering.plan.pool(
        kind,
        lowering.inputs(node)[0] if source is None else source,
        from_image or lowering.layouts[node.inputs[0]].extent,
        to_image or lowering.layouts[node.name].extent,
        kernel=deep(kernel, 1),
        stride=deep(stride, 1),
        padding=deep(padding, (0, 0)),
        dilation=deep(dilation, 1),
        ceil_mode=ceil_mode,
        adaptive=adaptive,
        count_include_pad=count_include_pad,
        divisor=divisor,
        epsilon=lowering.epsilon(node),
        blocks=lowering.idle(node),
    )


TABLE: Table = {
    MaxPool: _max_pool,
    AvgPool: _average_pool,
    AdaptiveAvgPool: _adaptive_pool,
    Mean: _mean,
}
