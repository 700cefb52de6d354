"""Layers with weights, and what the core is told of their rules."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from relprop import _core
from relprop import rules as r
from relprop.graph import Conv, ConvTranspose, Dense, Node, Padding, Sizes
from relprop.layouts import Layout
from relprop.lowering.lowering import Lowering, Table, deep


def _conv(lowering: Lowering, node: Node) -> int:
    conv = node.operator
    assert isinstance(conv, Conv)
    return _linear_step(
        lowering, node, conv.weight, conv.stride, conv.padding, conv.dilation, conv.groups
    )


def _conv_transpose(lowering: Lowering, node: Node) -> int:
    conv = node.operator
    assert isinstance(conv, ConvTranspose)
    return _linear_step(
        lowering,
        node,
        conv.weight,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        transposed=True,
    )


def _dense(lowering: Lowering, node: Node) -> int:
    assert isinstance(node.operator, Dense)
    weight = node.operator.weight
    before, after = lowering.layouts[node.inputs[0]], lowering.layouts[node.name]
    if not before.channels_last and not after.channels_last:
        return _linear_step(lowering, node, weight)
    # A dense layer works on the last axis, which for images is not the innermost.
    read = Layout(before.shape, False)
    source = lowering.in_rows(node.inputs[0])
    return lowering.out_of_rows(
        node,
        lambda made: _linear_step(lowering, node, weight, source=source, layouts=(read, made)),
        as_rows=True,
    )


def _linear_step(
    lowering: Lowering,
    node: Node,
    weight: NDArray[np.float32],
    stride: Sizes = (),
    padding: Padding = (),
    dilation: Sizes = (),
    groups: int = 1,
    *,
    transposed: bool = False,
    source: int | None = None,
    layouts: tuple[Layout, Layout] | None = None,
) -> int:
    """A layer with weights; ``source`` and ``layouts`` where it reads not its node's input."""
    assert isinstance(node.operator, Conv | ConvTranspose | Dense)
    rule, bias = lowering.rules[node.name], node.operator.bias
    clamp = None
    if source is None:
        source = lowering.inputs(node)[0]
        clamp = lowering.clamp(node, needs_value=isinstance(rule, r.Epsilon | r.Gamma))
    before, after = layouts or (lowering.layouts[node.inputs[0]], lowering.layouts[node.name])
    low = high = None
    if isinstance(rule, r.ZBox):
        low, high = (_bound(b, before.extent[3], node.name) for b in (rule.low, rule.high))
    kernel = deep(weight.shape[2:], 1)
    weight = _kept(weight)  # some layers read it where it is
    return lowering.plan.linear(
        source,
        after.extent if transposed else before.extent,
        before.extent if transposed else after.extent,
        weight.reshape(*weight.shape[:2], *kernel),
        None if bias is None else np.ascontiguousarray(bias, np.float32),
        deep(stride, 1),
        deep(padding, (0, 0)),
        deep(dilation, 1),
        groups,
        _core_rule(rule),
        transposed=transposed,
        blocks=lowering.idle(node),
        input_nonnegative=node.inputs[0] in lowering.nonnegative,
        supported=node.name in lowering.supported,
        clamp=clamp,
        low=low,
        high=high,
        channels_first=after.channels_last,
    )


def _kept(weight: NDArray[Any]) -> NDArray[np.float32]:
    """Weights that a Plan reads where they are, so that nobody may write them any more.

    The array itself where it is float32 and C-contiguous, and its memory its own or that of an
    array of which it is a reshape: both become read-only. A copy in all other cases. (Views that
    somebody made before can still be written; numpy tells of none.)
    """
    owner = weight if weight.base is None else weight.base
    if not (
        isinstance(owner, np.ndarray)
        and owner.flags.owndata
        and owner.size == weight.size
        and weight.dtype == np.float32
        and weight.flags.c_contiguous
        and weight.flags.aligned
    ):
        weight = owner = np.array(weight, np.float32, order="C")
    weight.flags.writeable = owner.flags.writeable = False
    return weight


def _bound(bound: r.Bound, channels: int, name: str) -> NDArray[np.float32]:
    values = np.atleast_1d(np.asarray(bound, np.float32))
    if values.size not in (1, channels):
        raise ValueError(
            f"node {name!r}: low and high must be one number or one per input channel "
            f"({channels}), not {values.size}."
        )
    return np.ascontiguousarray(np.broadcast_to(values, channels))


def _core_rule(rule: r.Rule) -> _core.Rule:
    match rule:
        case r.Epsilon():
            return _core.Rule("epsilon", rule.bias, epsilon=rule.epsilon)
        case r.AlphaBeta():
            return _core.Rule("alpha_beta", rule.bias, alpha=rule.alpha, beta=rule.beta)
        case r.Gamma():
            return _core.Rule("gamma", rule.bias, gamma=rule.gamma)
        case r.WSquare():
            return _core.Rule("w_square", rule.bias)
        case r.ZBox():
            return _core.Rule("z_box")
        case r.Flat():
            return _core.Rule("flat")
        case r.Gradient():
            return _core.Rule("gradient")
        case _:
            return _core.Rule("epsilon")  # Zero: the step is blocked, its rule never asked


TABLE: Table = {
    Conv: _conv,
    ConvTranspose: _conv_transpose,
    Dense: _dense,
}
