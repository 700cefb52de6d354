"""Compiles a Graph and its rules to a Plan of the core.

Images are (height, width, channels) in the core and (channels, height, width) in the Graph;
tensors of other ranks keep their order. A ReLU is fused into the layer before it where the
rules allow it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relprop import _core
from relprop import rules as r
from relprop.graph import (
    Activation,
    AdaptiveAvgPool,
    Add,
    AvgPool,
    BatchNorm,
    Clip,
    Concat,
    Constant,
    Conv,
    ConvTranspose,
    Dense,
    Embedding,
    Graph,
    Identity,
    Input,
    LocalResponseNorm,
    Maximum,
    MaxPool,
    Mean,
    Mul,
    Node,
    Pad,
    Padding,
    Pair,
    Permute,
    PReLU,
    Reshape,
    Shape,
    Sizes,
    Slice,
    UpsampleBilinear2d,
    UpsampleNearest2d,
    clip_bounds,
)
from relprop.signs import nonnegative, supported

Extent = tuple[int, int, int]


@dataclass(frozen=True)
class Compiled:
    """A finished Plan and how its steps and tensors belong to the Graph's nodes."""

    plan: _core.Plan
    tensors: dict[str, int]
    """Node name to the tensor that holds its output and the relevance there."""
    fused: frozenset[str]
    """Nodes whose own output is not kept: their tensor holds it after the ReLU."""
    step_nodes: tuple[str, ...]
    """For each step the node it belongs to."""


def compile_plan(graph: Graph, rules: Mapping[str, r.Rule]) -> Compiled:
    """Compile the part of ``graph`` that its output depends on.

    Raises
    ------
    ValueError
        If the output does not depend on the input.
    """
    return _Lowering(_alive(graph), rules).lower()


def _alive(graph: Graph) -> Graph:
    """The nodes that the output depends on, and the input."""
    wanted = {graph.output}
    for node in reversed(list(graph)):
        if node.name in wanted:
            wanted.update(node.inputs)
    if graph.input.name not in wanted:
        raise ValueError(f"the output {graph.output!r} does not depend on the input.")
    return Graph({node.name: node for node in graph if node.name in wanted}, graph.output)


def extent_of(shape: Shape) -> Extent:
    """Height, width and channels under which the core stores a tensor."""
    if len(shape) == 3:
        return shape[1], shape[2], shape[0]
    return 1, math.prod(shape[:-1]), shape[-1] if shape else 1


def _places(shape: Shape) -> NDArray[np.int64]:
    """For each element of a tensor, in the Graph's order, its place in the core's memory."""
    places: NDArray[np.int64] = np.arange(math.prod(shape))
    if len(shape) == 3:
        places = places.reshape(shape[1], shape[2], shape[0]).transpose(2, 0, 1)
    return places.reshape(shape)


def _stored(values: NDArray[Any]) -> NDArray[Any]:
    """Values of the Graph's order in the core's order, flat."""
    in_order = values.transpose(1, 2, 0) if values.ndim == 3 else values
    return in_order.ravel()


@dataclass
class _Lowering:
    graph: Graph
    rules: Mapping[str, r.Rule]
    plan: _core.Plan = field(default_factory=_core.Plan)
    tensors: dict[str, int] = field(default_factory=dict)
    fused: dict[str, str] = field(default_factory=dict)
    step_nodes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.nonnegative = nonnegative(self.graph)
        self.supported = supported(self.graph, self.rules)
        self.readers = self.graph.consumers()

    def lower(self) -> Compiled:
        # The plan's first tensor is its input; constants may come before it in the graph.
        source = self.graph.input
        self.tensors[source.name] = self.plan.input(
            extent_of(source.shape), channels_first=len(source.shape) == 3
        )
        for node in self.graph:
            if isinstance(node.operator, Input) or node.name in self.tensors:
                continue
            self.tensors[node.name] = _LOWER[type(node.operator)](self, node)
            self.step_nodes += [node.name] * (self.plan.steps - len(self.step_nodes))
            if node.name in self.fused:
                self.tensors[self.fused[node.name]] = self.tensors[node.name]
        self.plan.finish(self.tensors[self.graph.output])
        return Compiled(
            self.plan,
            self.tensors,
            frozenset(self.fused),
            tuple(self.step_nodes),
        )

    # ---- pieces ----------------------------------------------------------------------------

    def inputs(self, node: Node) -> list[int]:
        return [self.tensors[source] for source in node.inputs]

    def blocks(self, node: Node) -> bool:
        return isinstance(self.rules[node.name], r.Zero)

    def epsilon(self, node: Node) -> float:
        rule = self.rules[node.name]
        return rule.epsilon if isinstance(rule, r.Epsilon | r.Proportional) else 1e-6

    def move(
        self,
        source: int,
        index: NDArray[np.int64],
        value: float,
        shape: Shape,
        blocks: bool = False,
    ) -> int:
        """Values of ``source`` taken from ``index`` (of ``shape``, -1 for ``value``)."""
        return self.plan.move(
            source,
            _stored(index).astype(np.int32),
            value,
            extent_of(shape),
            channels_first=len(shape) == 3,
            blocks=blocks,
        )

    def broadcast(self, node: Node, source: str) -> int:
        """The tensor of ``source`` in the shape of ``node``."""
        shape = self.graph[source].shape
        if shape == node.shape:
            return self.tensors[source]
        index = np.broadcast_to(_places(shape), node.shape)
        return self.move(self.tensors[source], index, 0.0, node.shape)

    def clamp(self, node: Node, *, needs_value: bool) -> tuple[float, float] | None:
        """Bounds of the activation that can be fused into ``node``, which is then recorded.

        A layer whose rule needs its value before the ReLU keeps it, unless no relevance
        arrives where the ReLU changes anything.
        """
        if len(self.readers[node.name]) != 1 or node.name == self.graph.output:
            return None
        reader = self.readers[node.name][0]
        bounds = clip_bounds(reader.operator)
        if bounds is None or bounds[0] == bounds[1] or self.blocks(reader):
            return None
        harmless = bounds == (0.0, math.inf) and node.name in self.supported
        if needs_value and not harmless:
            return None
        self.fused[node.name] = reader.name
        return bounds

    # ---- operators -------------------------------------------------------------------------

    def constant(self, node: Node) -> int:
        assert isinstance(node.operator, Constant)
        value = _stored(node.operator.value).astype(np.float32)
        return self.plan.constant(value, extent_of(node.shape), channels_first=len(node.shape) == 3)

    def embedding(self, node: Node) -> int:
        """Rows looked up in the Graph's order of the ids, each with its features innermost."""
        assert isinstance(node.operator, Embedding)
        shape = self.graph[node.inputs[0]].shape
        ids, features = math.prod(shape), node.shape[-1]
        source, places = self.inputs(node)[0], _places(shape).reshape(ids)
        if not np.array_equal(places, np.arange(ids)):
            source = self.move(source, places, 0.0, (ids,))
        weight = np.ascontiguousarray(node.operator.weight, np.float32)
        made = self.plan.embedding(source, weight, self.blocks(node))
        rows = (ids, features)
        index = _places(rows).reshape(node.shape)
        if np.array_equal(_stored(index), np.arange(index.size)):
            return made
        return self.move(made, index, 0.0, node.shape)

    def conv(self, node: Node) -> int:
        conv = node.operator
        assert isinstance(conv, Conv)
        return self.linear(node, conv.weight, conv.stride, conv.padding, conv.dilation, conv.groups)

    def conv_transpose(self, node: Node) -> int:
        conv = node.operator
        assert isinstance(conv, ConvTranspose)
        return self.linear(
            node,
            conv.weight,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
            transposed=True,
        )

    def dense(self, node: Node) -> int:
        assert isinstance(node.operator, Dense)
        weight = node.operator.weight[:, :, None, None]
        if len(node.shape) != 3:
            return self.linear(node, weight)
        # A dense layer works on the last axis, which for images is not the innermost.
        shape = self.graph[node.inputs[0]].shape
        rows = math.prod(shape[:-1])
        places = _places(shape).reshape(rows, shape[-1])
        source = self.move(self.inputs(node)[0], places, 0.0, places.shape)
        result = (rows, node.shape[-1])
        made = self.linear(node, weight, source=source, shapes=(places.shape, result))
        return self.move(made, _places(result).reshape(node.shape), 0.0, node.shape)

    def linear(
        self,
        node: Node,
        weight: NDArray[np.float32],
        stride: Sizes = (1, 1),
        padding: Padding = ((0, 0), (0, 0)),
        dilation: Sizes = (1, 1),
        groups: int = 1,
        *,
        transposed: bool = False,
        source: int | None = None,
        shapes: tuple[Shape, Shape] | None = None,
    ) -> int:
        """A layer with weights; ``source`` and ``shapes`` where it reads not what its node does."""
        assert isinstance(node.operator, Conv | ConvTranspose | Dense)
        rule, bias = self.rules[node.name], node.operator.bias
        clamp = None
        if source is None:
            source = self.inputs(node)[0]
            clamp = self.clamp(node, needs_value=isinstance(rule, r.Epsilon | r.Gamma))
        shape_in, shape_out = shapes or (self.graph[node.inputs[0]].shape, node.shape)
        image_in, image_out = extent_of(shape_in), extent_of(shape_out)
        low = high = None
        if isinstance(rule, r.ZBox):
            low, high = (_bound(b, image_in[2], node.name) for b in (rule.low, rule.high))
        return self.plan.linear(
            source,
            image_out if transposed else image_in,
            image_in if transposed else image_out,
            np.ascontiguousarray(weight, np.float32),
            None if bias is None else np.ascontiguousarray(bias, np.float32),
            _two(stride),
            _sides(padding),
            _two(dilation),
            groups,
            _core_rule(rule),
            transposed=transposed,
            blocks=self.blocks(node),
            input_nonnegative=node.inputs[0] in self.nonnegative,
            supported=node.name in self.supported,
            clamp=clamp,
            low=low,
            high=high,
            channels_first=len(shape_out) == 3,
        )

    def pool(
        self,
        node: Node,
        kind: str,
        kernel: Sizes = (1, 1),
        stride: Sizes = (1, 1),
        padding: Padding = ((0, 0), (0, 0)),
        dilation: Sizes = (1, 1),
        ceil_mode: bool = False,
        adaptive: bool = False,
        count_include_pad: bool = False,
        divisor: int = 0,
        source: int | None = None,
        from_image: Extent | None = None,
        to_image: Extent | None = None,
    ) -> int:
        return self.plan.pool(
            kind,
            self.inputs(node)[0] if source is None else source,
            from_image or extent_of(self.graph[node.inputs[0]].shape),
            to_image or extent_of(node.shape),
            kernel=_two(kernel),
            stride=_two(stride),
            padding=_sides(padding),
            dilation=_two(dilation),
            ceil_mode=ceil_mode,
            adaptive=adaptive,
            count_include_pad=count_include_pad,
            divisor=divisor,
            epsilon=self.epsilon(node),
            blocks=self.blocks(node),
        )

    def max_pool(self, node: Node) -> int:
        pool = node.operator
        assert isinstance(pool, MaxPool)
        kind = "max_proportional" if isinstance(self.rules[node.name], r.Proportional) else "max"
        return self.pool(
            node, kind, pool.kernel, pool.stride, pool.padding, pool.dilation, pool.ceil_mode
        )

    def average_pool(self, node: Node) -> int:
        pool = node.operator
        assert isinstance(pool, AvgPool)
        return self.pool(
            node,
            "average",
            pool.kernel,
            pool.stride,
            pool.padding,
            ceil_mode=pool.ceil_mode,
            count_include_pad=pool.count_include_pad,
            divisor=pool.divisor or 0,
        )

    def adaptive_pool(self, node: Node) -> int:
        return self.pool(node, "average", adaptive=True)

    def upsample_nearest(self, node: Node) -> int:
        up = node.operator
        assert isinstance(up, UpsampleNearest2d)
        places = _places(self.graph[node.inputs[0]].shape)
        rows, columns = (
            np.minimum(np.floor(np.arange(size) * ratio).astype(np.int64), length - 1)
            for size, ratio, length in zip(up.size, up.ratio, places.shape[1:])
        )
        index = places[:, rows[:, None], columns]
        return self.move(self.inputs(node)[0], index, 0.0, node.shape, self.blocks(node))

    def upsample_bilinear(self, node: Node) -> int:
        up = node.operator
        assert isinstance(up, UpsampleBilinear2d)
        _, height, width = self.graph[node.inputs[0]].shape
        rows, by_row = _between(up.size[0], up.ratio[0], height, up.align_corners)
        columns, by_column = _between(up.size[1], up.ratio[1], width, up.align_corners)
        index = rows[:, None, :, None] * width + columns[None, :, None, :]
        weight = by_row[:, None, :, None] * by_column[None, :, None, :]
        return self.plan.resample(
            self.inputs(node)[0],
            index.reshape(-1, 4).astype(np.int32),
            weight.reshape(-1, 4).astype(np.float32),
            extent_of(node.shape),
            self.epsilon(node),
            self.blocks(node),
        )

    def mean(self, node: Node) -> int:
        """Mean over any axes: bring them together, then one window over all of them."""
        assert isinstance(node.operator, Mean)
        shape = self.graph[node.inputs[0]].shape
        axes = node.operator.axes
        rest = tuple(a for a in range(len(shape)) if a not in axes)
        window = math.prod(shape[a] for a in axes)
        kept = math.prod(shape[a] for a in rest)
        index = _places(shape).transpose(*rest, *axes).reshape(kept, window, 1)
        source = self.move(self.inputs(node)[0], index, 0.0, (kept, window, 1))
        mean = self.pool(
            node,
            "average",
            adaptive=True,
            source=source,
            from_image=(window, 1, kept),
            to_image=(1, 1, kept),
        )
        return self.arrange(mean, (kept,), np.arange(kept).reshape(node.shape), node)

    def arrange(self, source: int, shape: Shape, index: NDArray[np.int64], node: Node) -> int:
        """``source``, of ``shape``, in the order of ``index``; itself where that is its own."""
        alike = extent_of(shape) == extent_of(node.shape) and (
            len(shape) == len(node.shape) or extent_of(shape)[:2] == (1, 1)
        )
        same = alike and np.array_equal(_stored(index), np.arange(index.size))
        # Shared by other readers, the tensor's relevance is the sum of theirs, not this node's.
        alone = len(self.readers[node.inputs[0]]) == 1
        if same and alone and not self.blocks(node):
            return source
        return self.move(source, index, 0.0, node.shape, self.blocks(node))

    def rearrange(
        self, node: Node, change: Callable[[NDArray[np.int64]], NDArray[np.int64]]
    ) -> int:
        """The node's only input with its elements placed as ``change`` places theirs."""
        shape = self.graph[node.inputs[0]].shape
        return self.arrange(self.inputs(node)[0], shape, change(_places(shape)), node)

    def batch_norm(self, node: Node) -> int:
        norm = node.operator
        assert isinstance(norm, BatchNorm)
        if len(node.shape) not in (1, 3):
            raise ValueError(
                f"node {node.name!r} (BatchNorm): the shape must be (features,) or (channels, "
                f"height, width), not {node.shape}."
            )
        return self.plan.batch_norm(
            self.inputs(node)[0],
            np.ascontiguousarray(norm.scale, np.float32),
            np.ascontiguousarray(norm.shift, np.float32),
            self.epsilon(node),
            passes=isinstance(self.rules[node.name], r.Pass),
            blocks=self.blocks(node),
        )

    def local_response_norm(self, node: Node) -> int:
        norm = node.operator
        assert isinstance(norm, LocalResponseNorm)
        return self.plan.local_response_norm(
            self.inputs(node)[0],
            norm.within_channel,
            norm.size,
            norm.alpha,
            norm.beta,
            norm.k,
            taylor=isinstance(self.rules[node.name], r.Taylor),
            blocks=self.blocks(node),
        )

    def activation(self, node: Node) -> int:
        operator, bounds = node.operator, clip_bounds(node.operator)
        if bounds is not None:
            return self.plan.clip(self.inputs(node)[0], *bounds, self.blocks(node))
        assert isinstance(operator, Activation)
        return self.plan.activation(
            self.inputs(node)[0], operator.function, operator.parameter, blocks=self.blocks(node)
        )

    def prelu(self, node: Node) -> int:
        assert isinstance(node.operator, PReLU)
        slope = node.operator.slope
        if slope.size > 1 and len(node.shape) not in (1, 3):  # channels are not innermost
            each = slope.reshape(-1, *(1,) * (len(node.shape) - 1))
            slope = _stored(np.broadcast_to(each, node.shape))
        slope = np.ascontiguousarray(slope, np.float32)
        return self.plan.prelu(self.inputs(node)[0], slope, self.blocks(node))

    def add(self, node: Node) -> int:
        branches = [self.broadcast(node, source) for source in node.inputs]
        clamp = self.clamp(node, needs_value=True)
        return self.plan.add(branches, self.epsilon(node), clamp is not None, self.blocks(node))

    def mul(self, node: Node) -> int:
        first, second = (self.broadcast(node, source) for source in node.inputs)
        return self.plan.mul(first, second, *self.shares(node), self.blocks(node))

    def shares(self, node: Node) -> tuple[float, float]:
        """What each factor of a product takes of its relevance."""
        rule = self.rules[node.name]
        constant = [isinstance(self.graph[s].operator, Constant) for s in node.inputs]
        if any(constant):
            return float(not constant[0]), float(constant[0])
        if isinstance(rule, r.SignalTakesAll):
            if rule.signal is not None:
                return float(rule.signal == 0), float(rule.signal == 1)
            gate = [self.is_gate(source) for source in node.inputs]
            if gate[0] != gate[1]:
                return float(gate[1]), float(gate[0])
        return 0.5, 0.5

    def is_gate(self, name: str) -> bool:
        node = self.graph[name]
        while isinstance(node.operator, Reshape | Permute | Slice | Identity):
            node = self.graph[node.inputs[0]]
        return isinstance(node.operator, Activation) and node.operator.function in (
            "sigmoid",
            "hard_sigmoid",
        )

    def maximum(self, node: Node) -> int:
        branches = [self.broadcast(node, source) for source in node.inputs]
        return self.plan.maximum(branches, self.blocks(node))

    def concat(self, node: Node) -> int:
        assert isinstance(node.operator, Concat)
        # The axis in the core's order, and how often it is run through per sample.
        axis = (node.operator.axis - 1) % 3 if len(node.shape) == 3 else node.operator.axis
        order = extent_of(node.shape) if len(node.shape) == 3 else node.shape
        return self.plan.concat(
            self.inputs(node),
            math.prod(order[:axis]),
            extent_of(node.shape),
            channels_first=len(node.shape) == 3,
            blocks=self.blocks(node),
        )

    def slice(self, node: Node) -> int:
        cut = node.operator
        assert isinstance(cut, Slice)
        where = (slice(None),) * cut.axis + (slice(cut.start, cut.stop, cut.step),)
        return self.rearrange(node, lambda places: places[where])

    def pad(self, node: Node) -> int:
        assert isinstance(node.operator, Pad)
        places = _places(self.graph[node.inputs[0]].shape)
        index = np.pad(places, node.operator.pads, constant_values=-1)
        return self.move(
            self.inputs(node)[0], index, node.operator.value, node.shape, self.blocks(node)
        )

    def reshape(self, node: Node) -> int:
        return self.rearrange(node, lambda places: places.reshape(node.shape))

    def permute(self, node: Node) -> int:
        axes = node.operator.axes if isinstance(node.operator, Permute) else ()
        return self.rearrange(node, lambda places: places.transpose(axes))

    def identity(self, node: Node) -> int:
        return self.rearrange(node, lambda places: places)


_LOWER: dict[type, Callable[[_Lowering, Node], int]] = {
    Constant: _Lowering.constant,
    Embedding: _Lowering.embedding,
    Conv: _Lowering.conv,
    ConvTranspose: _Lowering.conv_transpose,
    Dense: _Lowering.dense,
    MaxPool: _Lowering.max_pool,
    AvgPool: _Lowering.average_pool,
    AdaptiveAvgPool: _Lowering.adaptive_pool,
    UpsampleNearest2d: _Lowering.upsample_nearest,
    UpsampleBilinear2d: _Lowering.upsample_bilinear,
    Mean: _Lowering.mean,
    BatchNorm: _Lowering.batch_norm,
    LocalResponseNorm: _Lowering.local_response_norm,
    Activation: _Lowering.activation,
    Clip: _Lowering.activation,
    PReLU: _Lowering.prelu,
    Add: _Lowering.add,
    Mul: _Lowering.mul,
    Maximum: _Lowering.maximum,
    Concat: _Lowering.concat,
    Slice: _Lowering.slice,
    Pad: _Lowering.pad,
    Reshape: _Lowering.reshape,
    Permute: _Lowering.permute,
    Identity: _Lowering.identity,
}


def _two(sizes: Sizes) -> Pair:
    height, width = sizes
    return height, width


def _sides(padding: Padding) -> tuple[int, int, int, int]:
    (top, bottom), (left, right) = padding
    return top, bottom, left, right


def _between(
    size: int, ratio: float, length: int, align_corners: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Along one axis the two inputs on each side of every output, and their weights."""
    at = np.arange(size, dtype=np.float64)
    at = at * ratio if align_corners else np.maximum((at + 0.5) * ratio - 0.5, 0.0)
    before = np.minimum(np.floor(at).astype(np.int64), length - 1)
    behind = np.minimum(before + 1, length - 1)
    part = np.clip(at - before, 0.0, 1.0)
    return np.stack([before, behind], axis=1), np.stack([1 - part, part], axis=1)


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
        case _:
            return _core.Rule("epsilon")  # Zero: the step is blocked, its rule never asked
