"""Compiles a Graph and its rules to a Plan of the core.

How the core stores each tensor is decided in ``layouts.py``. A ReLU is fused into the layer
before it where the rules allow it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from relprop import _core
from relprop import rules as r
from relprop.devices import Precision
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
    Sizes,
    Slice,
    UpsampleBilinear2d,
    UpsampleNearest2d,
    clip_bounds,
)
from relprop.layouts import Extent, Layout, layouts
from relprop.signs import nonnegative, supported

MOST_PLACES = 2**28
"""So many values one network may take from places listed one by one, 4 bytes each: a small file
can ask for far more than fit into memory."""

_Setting = TypeVar("_Setting", int, Pair)


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
    inputs: tuple[str, ...]
    """The inputs that the output depends on, in the order in which the Plan takes them."""


def compile_plan(
    graph: Graph,
    rules: Mapping[str, r.Rule],
    gpu: int | None = None,
    precision: Precision = "float32",
) -> Compiled:
    """Compile the part of ``graph`` that its one output depends on, for a GPU or the CPU.

    Some layers read their weights where they are: the Graph's arrays become read-only.

    Raises
    ------
    ValueError
        If the output depends on no input.
    """
    return _Lowering(_alive(graph), rules, _core.Plan(gpu, precision)).lower()


def _alive(graph: Graph) -> Graph:
    """The nodes that the output depends on, without inputs that it does not."""
    graph = graph.pruned()
    readers = graph.consumers()
    unread = {n.name for n in graph.inputs if not readers[n.name] and n.name != graph.output}
    if len(unread) == len(graph.inputs):
        raise ValueError(f"the output {graph.output!r} depends on no input.")
    nodes = {name: node for name, node in graph.nodes.items() if name not in unread}
    return Graph(nodes, graph.outputs)


@dataclass
class _Lowering:
    graph: Graph
    rules: Mapping[str, r.Rule]
    plan: _core.Plan
    tensors: dict[str, int] = field(default_factory=dict)
    fused: dict[str, str] = field(default_factory=dict)
    step_nodes: list[str] = field(default_factory=list)
    places: int = 0

    def __post_init__(self) -> None:
        self.nonnegative = nonnegative(self.graph)
        self.supported = supported(self.graph, self.rules)
        self.readers = self.graph.consumers()
        self.layouts = layouts(self.graph)

    def lower(self) -> Compiled:
        for node in self.graph:
            if node.name in self.tensors:
                continue
            self.tensors[node.name] = _LOWER[type(node.operator)](self, node)
            self.step_nodes += [node.name] * (self.plan.steps - len(self.step_nodes))
            if node.name in self.fused and self.activation_rule(self.fused[node.name]) == "pass":
                self.tensors[self.fused[node.name]] = self.tensors[node.name]
        self.plan.finish(self.tensors[self.graph.output])
        return Compiled(
            self.plan,
            self.tensors,
            frozenset(self.fused),
            tuple(self.step_nodes),
            tuple(node.name for node in self.graph.inputs),
        )

    # ---- pieces ----------------------------------------------------------------------------

    def inputs(self, node: Node) -> list[int]:
        return [self.tensors[source] for source in node.inputs]

    def blocks(self, node: Node) -> bool:
        return isinstance(self.rules[node.name], r.Zero)

    def gradient(self, name: str) -> bool:
        return isinstance(self.rules[name], r.Gradient)

    def activation_rule(self, name: str) -> str:
        return _ACTIVATION_RULES.get(type(self.rules[name]), "pass")

    def epsilon(self, node: Node) -> float | None:
        """The stabilizer of a node that is linear with constant weights; None: the gradient."""
        rule = self.rules[node.name]
        if self.gradient(node.name):
            return None
        return rule.epsilon if isinstance(rule, r.Epsilon | r.Proportional) else 1e-6

    def count_places(self, node: Node, *shape: int) -> None:
        """Make sure that a list of places of this shape may be made for ``node``."""
        self.places += math.prod(shape)
        if self.places > MOST_PLACES:
            raise ValueError(
                f"node {node.name!r} ({node.type}): with it the network takes {self.places} values "
                f"from places of their own, which is more than {MOST_PLACES}."
            )

    def move(
        self,
        source: int,
        index: NDArray[np.integer[Any]],
        value: float,
        layout: Layout,
        blocks: bool = False,
    ) -> int:
        """Values of ``source`` taken from ``index`` (shaped as the result, -1 for ``value``)."""
        return self.plan.move(
            source,
            layout.stored(index).astype(np.int32, copy=False),
            value,
            layout.extent,
            channels_first=layout.channels_last,
            blocks=blocks,
        )

    def broadcast(self, node: Node, source: str) -> int:
        """The tensor of ``source`` in the shape and layout of ``node``."""
        before, after = self.layouts[source], self.layouts[node.name]
        if before == after:
            return self.tensors[source]
        self.count_places(node, *node.shape)
        index = np.broadcast_to(before.places(), node.shape)
        return self.move(self.tensors[source], index, 0.0, after)

    def clamp(
        self, node: Node, *, needs_value: bool, relu_alone: bool = False
    ) -> tuple[float, float] | None:
        """Bounds of the activation that can be fused into ``node``, which is then recorded.

        A layer whose rule needs its value before the ReLU keeps it, unless no relevance
        arrives where the ReLU changes anything. Where a ReLU changes relevance it stays a step:
        its value is the layer's, its relevance is not. ``relu_alone`` where the node's step
        knows no other bounds.
        """
        if len(self.readers[node.name]) != 1 or node.name == self.graph.output:
            return None
        reader = self.readers[node.name][0]
        bounds = clip_bounds(reader.operator)
        if bounds is None or bounds[0] == bounds[1] or self.blocks(reader):
            return None
        harmless = bounds == (0.0, math.inf) and node.name in self.supported
        if (needs_value and not harmless) or (relu_alone and bounds != (0.0, math.inf)):
            return None
        self.fused[node.name] = reader.name
        return bounds

    # ---- operators -------------------------------------------------------------------------

    def input(self, node: Node) -> int:
        layout = self.layouts[node.name]
        return self.plan.input(layout.extent, channels_first=layout.channels_last)

    def constant(self, node: Node) -> int:
        assert isinstance(node.operator, Constant)
        layout = self.layouts[node.name]
        value = layout.stored(node.operator.value).astype(np.float32)
        return self.plan.constant(value, layout.extent, channels_first=layout.channels_last)

    def embedding(self, node: Node) -> int:
        """Rows looked up in the Graph's order of the ids, each with its features innermost."""
        assert isinstance(node.operator, Embedding)
        before, after = self.layouts[node.inputs[0]], self.layouts[node.name]
        ids, features = math.prod(before.shape), node.shape[-1]
        self.count_places(node, *node.shape)
        source, places = self.inputs(node)[0], before.places().reshape(ids)
        if not np.array_equal(places, np.arange(ids)):
            source = self.move(source, places, 0.0, Layout((ids,), False))
        weight = np.ascontiguousarray(node.operator.weight, np.float32)
        made = self.plan.embedding(source, weight, self.blocks(node))
        if not after.channels_last:
            return made
        return self.move(made, np.arange(ids * features).reshape(node.shape), 0.0, after)

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
        weight = node.operator.weight
        before, after = self.layouts[node.inputs[0]], self.layouts[node.name]
        if not before.channels_last and not after.channels_last:
            return self.linear(node, weight)
        # A dense layer works on the last axis, which for images is not the innermost.
        rows = math.prod(node.shape[:-1])
        self.count_places(node, rows, sum(weight.shape))
        read, made = (Layout((rows, features), False) for features in weight.shape[::-1])
        places = before.places().reshape(read.shape)
        source = self.move(self.inputs(node)[0], places, 0.0, read)
        result = self.linear(node, weight, source=source, layouts=(read, made))
        return self.move(result, made.places().reshape(node.shape), 0.0, after)

    def linear(
        self,
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
        rule, bias = self.rules[node.name], node.operator.bias
        clamp = None
        if source is None:
            source = self.inputs(node)[0]
            clamp = self.clamp(node, needs_value=isinstance(rule, r.Epsilon | r.Gamma))
        before, after = layouts or (self.layouts[node.inputs[0]], self.layouts[node.name])
        low = high = None
        if isinstance(rule, r.ZBox):
            low, high = (_bound(b, before.extent[3], node.name) for b in (rule.low, rule.high))
        kernel = _deep(weight.shape[2:], 1)
        weight = _kept(weight)  # some layers read it where it is
        return self.plan.linear(
            source,
            after.extent if transposed else before.extent,
            before.extent if transposed else after.extent,
            weight.reshape(*weight.shape[:2], *kernel),
            None if bias is None else np.ascontiguousarray(bias, np.float32),
            _deep(stride, 1),
            _deep(padding, (0, 0)),
            _deep(dilation, 1),
            groups,
            _core_rule(rule),
            transposed=transposed,
            blocks=self.blocks(node),
            input_nonnegative=node.inputs[0] in self.nonnegative,
            supported=node.name in self.supported,
            clamp=clamp,
            low=low,
            high=high,
            channels_first=after.channels_last,
        )

    def pool(
        self,
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
        return self.plan.pool(
            kind,
            self.inputs(node)[0] if source is None else source,
            from_image or self.layouts[node.inputs[0]].extent,
            to_image or self.layouts[node.name].extent,
            kernel=_deep(kernel, 1),
            stride=_deep(stride, 1),
            padding=_deep(padding, (0, 0)),
            dilation=_deep(dilation, 1),
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
        self.count_places(node, *node.shape)
        places = self.layouts[node.inputs[0]].places()
        rows, columns = (
            np.minimum(np.floor(np.arange(size) * ratio).astype(np.int64), length - 1)
            for size, ratio, length in zip(up.size, up.ratio, places.shape[1:])
        )
        index = places[:, rows[:, None], columns]
        layout = self.layouts[node.name]
        return self.move(self.inputs(node)[0], index, 0.0, layout, self.blocks(node))

    def upsample_bilinear(self, node: Node) -> int:
        up = node.operator
        assert isinstance(up, UpsampleBilinear2d)
        self.count_places(node, 4, *up.size)
        _, height, width = self.graph[node.inputs[0]].shape
        rows, by_row = _between(up.size[0], up.ratio[0], height, up.align_corners)
        columns, by_column = _between(up.size[1], up.ratio[1], width, up.align_corners)
        index = rows[:, None, :, None] * width + columns[None, :, None, :]
        weight = by_row[:, None, :, None] * by_column[None, :, None, :]
        return self.plan.resample(
            self.inputs(node)[0],
            index.reshape(-1, 4).astype(np.int32),
            weight.reshape(-1, 4).astype(np.float32),
            self.layouts[node.name].extent,
            self.epsilon(node),
            self.blocks(node),
        )

    def mean(self, node: Node) -> int:
        """Mean over any axes: bring them together, then one window over all of them."""
        assert isinstance(node.operator, Mean)
        layout = self.layouts[node.inputs[0]]
        axes = node.operator.axes
        self.count_places(node, *layout.shape)
        rest = tuple(a for a in range(len(layout.shape)) if a not in axes)
        window = math.prod(layout.shape[a] for a in axes)
        kept = math.prod(layout.shape[a] for a in rest)
        together = Layout((kept, window), True)
        index = layout.places().transpose(*rest, *axes).reshape(together.shape)
        source = self.move(self.inputs(node)[0], index, 0.0, together)
        means = Layout((kept, 1), True)
        mean = self.pool(
            node,
            "average",
            adaptive=True,
            source=source,
            from_image=together.extent,
            to_image=means.extent,
        )
        return self.arrange(mean, means, np.arange(kept).reshape(node.shape), node)

    def arrange(
        self, source: int, before: Layout, index: NDArray[np.integer[Any]], node: Node
    ) -> int:
        """``source``, of layout ``before``, ordered by ``index``; itself if that is its order."""
        after = self.layouts[node.name]
        alike = before.extent == after.extent and (
            before.channels_last == after.channels_last or before.extent[:3] == (1, 1, 1)
        )
        same = alike and np.array_equal(after.stored(index), np.arange(index.size))
        # Shared by other readers, the tensor's relevance is the sum of theirs, not this node's.
        alone = len(self.readers[node.inputs[0]]) == 1
        if same and alone and not self.blocks(node):
            return source
        return self.move(source, index, 0.0, after, self.blocks(node))

    def rearrange(
        self, node: Node, change: Callable[[NDArray[np.int32]], NDArray[np.int32]]
    ) -> int:
        """The node's only input with its elements placed as ``change`` places theirs."""
        before = self.layouts[node.inputs[0]]
        self.count_places(node, *before.shape)
        return self.arrange(self.inputs(node)[0], before, change(before.places()), node)

    def batch_norm(self, node: Node) -> int:
        norm = node.operator
        assert isinstance(norm, BatchNorm)
        if len(node.shape) > 4:
            raise ValueError(
                f"node {node.name!r} (BatchNorm): the shape must be (features,) or (channels, ...) "
                f"with at most three more axes, not {node.shape}."
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
        taylor = isinstance(self.rules[node.name], r.Taylor)
        return self.plan.local_response_norm(
            self.inputs(node)[0],
            norm.within_channel,
            norm.size,
            norm.alpha,
            norm.beta,
            norm.k,
            rule="gradient" if self.gradient(node.name) else "taylor" if taylor else "pass",
            blocks=self.blocks(node),
        )

    def activation(self, node: Node) -> int:
        operator, bounds = node.operator, clip_bounds(node.operator)
        source, blocks = self.inputs(node)[0], self.blocks(node)
        rule = self.activation_rule(node.name)
        if bounds is not None:
            clamped = node.inputs[0] in self.fused
            return self.plan.clip(source, *bounds, rule, clamped, blocks)
        assert isinstance(operator, Activation)
        return self.plan.activation(source, operator.function, operator.parameter, rule, blocks)

    def prelu(self, node: Node) -> int:
        assert isinstance(node.operator, PReLU)
        slope = node.operator.slope
        layout = self.layouts[node.name]
        if slope.size > 1 and len(node.shape) > 1 and not layout.channels_last:
            each = slope.reshape(-1, *(1,) * (len(node.shape) - 1))
            slope = layout.stored(np.broadcast_to(each, node.shape))
        slope = np.ascontiguousarray(slope, np.float32)
        rule = self.activation_rule(node.name)
        return self.plan.prelu(self.inputs(node)[0], slope, rule, self.blocks(node))

    def add(self, node: Node) -> int:
        branches = [self.broadcast(node, source) for source in node.inputs]
        needs_value = not self.gradient(node.name)
        clamp = self.clamp(node, needs_value=needs_value, relu_alone=True)
        return self.plan.add(branches, self.epsilon(node), clamp is not None, self.blocks(node))

    def mul(self, node: Node) -> int:
        first, second = (self.broadcast(node, source) for source in node.inputs)
        return self.plan.mul(first, second, self.shares(node), self.blocks(node))

    def shares(self, node: Node) -> tuple[float, float] | None:
        """What each factor of a product takes of its relevance; None: the gradient."""
        rule = self.rules[node.name]
        if self.gradient(node.name):
            return None
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
        layout = self.layouts[node.name]
        # The axis as it is stored, and how often it is run through per sample.
        axis = (node.operator.axis - layout.channels_last) % len(node.shape)
        return self.plan.concat(
            self.inputs(node),
            math.prod(layout.order[:axis]),
            layout.extent,
            channels_first=layout.channels_last,
            blocks=self.blocks(node),
        )

    def slice(self, node: Node) -> int:
        cut = node.operator
        assert isinstance(cut, Slice)
        where = (slice(None),) * cut.axis + (slice(cut.start, cut.stop, cut.step),)
        return self.rearrange(node, lambda places: places[where])

    def pad(self, node: Node) -> int:
        assert isinstance(node.operator, Pad)
        self.count_places(node, *node.shape)
        places = self.layouts[node.inputs[0]].places()
        index = np.pad(places, node.operator.pads, constant_values=-1)
        layout = self.layouts[node.name]
        return self.move(
            self.inputs(node)[0], index, node.operator.value, layout, self.blocks(node)
        )

    def reshape(self, node: Node) -> int:
        return self.rearrange(node, lambda places: places.reshape(node.shape))

    def permute(self, node: Node) -> int:
        axes = node.operator.axes if isinstance(node.operator, Permute) else ()
        return self.rearrange(node, lambda places: places.transpose(axes))

    def identity(self, node: Node) -> int:
        return self.rearrange(node, lambda places: places)


_ACTIVATION_RULES: dict[type, str] = {
    r.Gradient: "gradient",
    r.Deconvolution: "deconvolution",
    r.GuidedBackprop: "guided",
}
"""What an activation does with relevance that it does not hand on as it is."""

_LOWER: dict[type, Callable[[_Lowering, Node], int]] = {
    Input: _Lowering.input,
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


def _deep(settings: tuple[_Setting, ...], default: _Setting) -> tuple[_Setting, _Setting, _Setting]:
    """Settings along depth, height and width, of which the first may be missing."""
    depth, height, width = (default,) * (3 - len(settings)) + settings
    return depth, height, width


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
        case r.Gradient():
            return _core.Rule("gradient")
        case _:
            return _core.Rule("epsilon")  # Zero: the step is blocked, its rule never asked
