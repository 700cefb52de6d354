"""What a run takes at least: operations of its products over their rate, bytes over bandwidth.

In either pass a node's steps read once what they need and write once what they make; what they keep
for themselves in between, and the ledger, does not count. Products are those of ``Linear`` on a GPU
(cpp/steps/linear.cpp), which has neither Winograd's filtering nor a choice by signs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from relprop import costs
from relprop import rules as r
from relprop.benchmark.contenders import box_of
from relprop.benchmark.place import CPU, Place
from relprop.compile import Compiled, compile_plan
from relprop.composites import assign, preset
from relprop.devices import Precision, gpu_of
from relprop.factors import shares, unreached
from relprop.graph import (
    Activation,
    AdaptiveAvgPool,
    Add,
    AvgPool,
    BatchNorm,
    Clip,
    Concat,
    Conv,
    ConvTranspose,
    Dense,
    Graph,
    GroupNorm,
    LayerNorm,
    LocalResponseNorm,
    MatMul,
    Maximum,
    MaxPool,
    Mean,
    Mul,
    Node,
    PReLU,
    Softmax,
    UpsampleBilinear2d,
    clip_bounds,
)
from relprop.signs import nonnegative, supported

VALUE_BYTES = 4
WEIGHT_BYTES: dict[Precision, int] = {"float32": 4, "tf32": 4, "bf16": 2}
"""What one number takes in memory; values are float32 in every precision."""

_WEIGHTED = (Conv, ConvTranspose, Dense, MatMul)
"""What has products."""
_MEANS = (AvgPool, AdaptiveAvgPool, Mean, UpsampleBilinear2d, BatchNorm, Add)
"""Linear with constant weights: relevance is in proportion to what each input brings."""


@dataclass(frozen=True)
class Ceilings:
    """What a machine gives at best."""

    operations: float
    """Of products, a second."""
    bytes: float
    """Read and written, a second."""
    precision: Precision = "float32"


@dataclass(frozen=True)
class Work:
    """What one pass over a node takes."""

    multiply_adds: int = 0
    """Of one sample."""
    values: int = 0
    """Read and written for one sample."""
    weights: int = 0
    """Read once for all samples."""

    def operations(self, batch: int) -> float:
        """Return the multiplications and additions of a batch."""
        return 2.0 * batch * self.multiply_adds

    def bytes(self, batch: int, precision: Precision) -> float:
        """Return the bytes that a batch must move."""
        weights = self.weights * WEIGHT_BYTES[precision]
        return float(batch * self.values * VALUE_BYTES + weights)

    def floor(self, batch: int, ceilings: Ceilings) -> Floor:
        """Return the least that a batch takes."""
        return Floor(
            self.operations(batch) / ceilings.operations,
            self.bytes(batch, ceilings.precision) / ceilings.bytes,
        )


@dataclass(frozen=True)
class Floor:
    """The least that something takes, in seconds: the larger of its two parts."""

    operations: float
    bytes: float

    @property
    def seconds(self) -> float:
        """The larger part."""
        return max(self.operations, self.bytes)


Works = Mapping[str, tuple[Work, Work]]
"""For each node that has steps what it takes forward, and back."""


def works(graph: Graph, rules: Mapping[str, r.Rule], compiled: Compiled) -> Works:
    """Count what every node of a compiled network takes."""
    run = _Run(graph, rules, compiled)
    stepping = {*compiled.step_nodes}
    return {
        node.name: (run.forward(node), run.backward(node))
        for node in graph
        if node.name in stepping
    }


def works_under(graph: Graph, preset_name: str, place: Place = CPU) -> Works:
    """Count what every node takes under a preset, compiled for a place."""
    rules = assign(preset(preset_name, **box_of(preset_name)), graph)
    return works(graph, rules, compile_plan(graph, rules, gpu_of(place.device), place.precision))


def total(counted: Works, batch: int, ceilings: Ceilings) -> dict[str, float]:
    """Sum up a run's floors, and how much of that is bound by operations and how much by bytes."""
    every = [work for pair in counted.values() for work in pair]
    floors = [work.floor(batch, ceilings) for work in every]
    return {
        "seconds": math.fsum(floor.seconds for floor in floors),
        "bound_by_operations": math.fsum(f.operations for f in floors if f.operations > f.bytes),
        "bound_by_bytes": math.fsum(f.bytes for f in floors if f.operations <= f.bytes),
        "gflop": 1e-9 * math.fsum(work.operations(batch) for work in every),
        "gbytes": 1e-9 * math.fsum(work.bytes(batch, ceilings.precision) for work in every),
    }


class _Run:
    """One network under its rules."""

    def __init__(self, graph: Graph, rules: Mapping[str, r.Rule], compiled: Compiled) -> None:
        self.graph = graph
        self.rules = rules
        self.fused = compiled.fused
        names, senders = compiled.step_nodes, compiled.plan.senders
        # a layer's message is made of its output's value where its relevance is complete
        self.sender = {names[s]: names[by] for s, by in enumerate(senders) if by >= 0}
        self.nonnegative = nonnegative(graph)
        self.supported = supported(graph, rules)
        self.unreached = unreached(graph, rules)
        self.readers = graph.consumers()
        self.last_reader = {source: node for node in graph for source in node.inputs}

    def size(self, name: str) -> int:
        return math.prod(self.graph[name].shape)

    def inputs(self, node: Node) -> int:
        return sum(map(self.size, node.inputs))

    def forward(self, node: Node) -> Work:
        if isinstance(node.operator, Clip | Activation) and node.inputs[0] in self.fused:
            return Work()  # the layer before it has its value already
        return Work(
            costs.multiply_adds(self.graph, node),
            self.inputs(node) + self.size(node.name),
            costs.parameters(node) if node.inputs else 0,
        )

    def backward(self, node: Node) -> Work:
        rule = self.rules.get(node.name)
        if not node.inputs or isinstance(rule, r.Zero) or node.name in self.unreached:
            return Work()
        alone = all(len(self.readers[source]) == 1 for source in node.inputs)
        if self.passes(node) and alone:
            return Work()  # the relevance stays where it is
        moved = self.size(node.name) + self.values_read(node)
        if node.name in self.sender:
            moved -= self.size(node.name)  # who sends the message reads that value
        for source in node.inputs:
            joins = self.last_reader[source] is not node  # what other readers gave is there already
            moved += self.size(source) * (2 if joins else 1)
        weighted = isinstance(node.operator, _WEIGHTED)
        products = self.products(node) if weighted else 0
        return Work(
            products * costs.multiply_adds(self.graph, node),
            moved,
            0 if weighted and products == 0 else costs.parameters(node),
        )

    def passes(self, node: Node) -> bool:
        """Whether relevance is handed on as it is."""
        rule = self.rules[node.name]
        if isinstance(node.operator, Activation | Clip | PReLU):
            return not isinstance(rule, r.Gradient | r.Deconvolution | r.GuidedBackprop)
        if isinstance(node.operator, LocalResponseNorm):
            return not isinstance(rule, r.Gradient | r.Taylor)
        return isinstance(node.operator, BatchNorm) and isinstance(rule, r.Pass)

    def values_read(self, node: Node) -> int:
        """Values of the forward pass that the pass back reads again, of one sample."""
        rule, source, result = self.rules[node.name], self.inputs(node), self.size(node.name)
        gradient = isinstance(rule, r.Gradient)
        match node.operator:
            case Conv() | ConvTranspose() | Dense():
                if gradient or isinstance(rule, r.Flat | r.WSquare):
                    return 0
                sums = isinstance(rule, r.Epsilon | r.Gamma) or self.takes_difference(node)
                return source + (result if sums else 0)
            case MaxPool():
                return source  # whose winners are found again
            case Concat():
                return sum(map(self.size, (n for n, by in self.sender.items() if by == node.name)))
            case Maximum():
                return source + result
            case MatMul() | LayerNorm() | GroupNorm():
                return source + (0 if gradient else result)
            case Softmax():
                return result + (0 if gradient else source)
            case Mul():
                return source if gradient else 0
            case operator if isinstance(operator, _MEANS):
                return 0 if gradient else source + result
            case Clip() | Activation() | PReLU() if not self.passes(node):
                if isinstance(rule, r.Deconvolution):
                    return 0
                return result if clip_bounds(node.operator) else source
            case LocalResponseNorm() if not self.passes(node):
                return source
        return 0

    def products(self, node: Node) -> int:
        """Products of a layer on the way back, those of the Z+ and Z- among them."""
        rule, known = self.rules[node.name], node.inputs[0] in self.nonnegative
        if isinstance(node.operator, MatMul):
            return sum(share > 0 for share in shares(self.graph, rule, node) or (1, 1))
        match rule:
            case r.Flat():
                return 0
            case r.ZBox():
                return 2 + 2
            case r.Gamma():
                one = known and node.name in self.supported  # both messages, up to a factor
                return (1 if known else 2) + (1 if one else 2 if known else 4)
            case r.AlphaBeta():
                sums = 2 if rule.beta > 0 and not self.takes_difference(node) else 1
                if known:
                    return sums + (2 if rule.beta > 0 else 1)
                return 2 * sums + (4 if rule.beta > 0 else 2)
        return 1

    def takes_difference(self, node: Node) -> bool:
        """Whether Z- is what z leaves of Z+: the value that is kept must be z."""
        rule, operator = self.rules[node.name], node.operator
        if (
            not isinstance(rule, r.AlphaBeta)
            or rule.beta == 0
            or isinstance(operator, ConvTranspose)
        ):
            return False
        if isinstance(operator, Conv) and 1 < operator.groups == operator.weight.shape[0]:
            read = self.graph[node.inputs[0]].shape[0]
            if read == operator.groups:
                return False  # depthwise
        if node.name not in self.fused:
            return True
        bounds = clip_bounds(self.readers[node.name][0].operator)
        return bounds is not None and math.isinf(bounds[1]) and node.name in self.supported
