"""What is known of signs and of the support of relevance, from the Graph and its rules alone.

Every fast path asks here. Two facts per node:

- *nonnegative*: its value is known to be >= 0 for every input.
- *supported*: no relevance arrives where its value is <= 0, since a ReLU follows, at once or
  behind steps that only move values, and nothing behind the ReLU gives relevance to a zero.
"""

from __future__ import annotations

from collections.abc import Mapping

from relprop.graph import (
    Activation,
    AdaptiveAvgPool,
    Add,
    AvgPool,
    BatchNorm,
    Clip,
    Concat,
    Constant,
    Embedding,
    Graph,
    Identity,
    LocalResponseNorm,
    Mask,
    MatMul,
    Maximum,
    MaxPool,
    Mean,
    Mul,
    Node,
    Pad,
    Permute,
    PReLU,
    Reshape,
    Slice,
    Softmax,
    UpsampleBilinear2d,
    UpsampleNearest2d,
    clip_bounds,
)
from relprop.rules import (
    AlphaBeta,
    Epsilon,
    Gamma,
    HalfAndHalf,
    Pass,
    Proportional,
    Rule,
    SignalTakesAll,
    Taylor,
    WinnerTakesAll,
    Zero,
)

_KEEP_SIGN = (
    MaxPool,
    AvgPool,
    AdaptiveAvgPool,
    UpsampleNearest2d,
    UpsampleBilinear2d,
    Mean,
    LocalResponseNorm,
    Concat,
    Add,
    Mul,
    MatMul,
    PReLU,
    Slice,
    Reshape,
    Permute,
    Identity,
)


_MOVES = (MaxPool, LocalResponseNorm, Concat, Slice, Reshape, Permute, Identity)

_POSITIVE = ("sigmoid", "hard_sigmoid", "softplus", "exp")
"""Functions that are nowhere negative, and above zero at zero."""


def nonnegative(graph: Graph) -> set[str]:
    """Names of the nodes whose value is known to be >= 0."""
    known: set[str] = set()
    for node in graph:
        operator = node.operator
        inputs = all(source in known for source in node.inputs)
        bounds = clip_bounds(operator)
        if bounds is not None:
            positive = bounds[0] >= 0 or (inputs and bounds[1] >= 0)
        elif isinstance(operator, Activation):
            even = operator.function == "power" and operator.parameter % 2 == 0
            positive = operator.function in _POSITIVE or even or inputs
        elif isinstance(operator, Maximum):
            positive = any(source in known for source in node.inputs)
        elif isinstance(operator, Constant):
            positive = bool((operator.value >= 0).all())
        elif isinstance(operator, Embedding):
            positive = bool((operator.weight >= 0).all())
        elif isinstance(operator, Mask):
            positive = bool((operator.values >= 0).all())
        elif isinstance(operator, Pad):
            positive = inputs and operator.value >= 0
        else:
            positive = isinstance(operator, Softmax) or (
                isinstance(operator, _KEEP_SIGN) and inputs
            )
        if positive:
            known.add(node.name)
    return known


def supported(graph: Graph, rules: Mapping[str, Rule]) -> set[str]:
    """Names of the nodes at which no relevance arrives where their value is <= 0."""
    readers = graph.consumers()
    silent: set[str] = set()  # no relevance where the value is exactly 0
    for node in reversed(list(graph)):
        # The output's relevance is the user's to choose, whatever the value there.
        if node.name != graph.output and all(
            _silent_at_zero(reader, rules[reader.name], silent) for reader in readers[node.name]
        ):
            silent.add(node.name)
    known: set[str] = set()
    for node in reversed(list(graph)):
        if node.name != graph.output and all(
            (_is_relu(reader) and reader.name in silent)
            or (_takes_along(reader, rules[reader.name]) and reader.name in known)
            for reader in readers[node.name]
        ):
            known.add(node.name)
    return known


def _takes_along(reader: Node, rule: Rule) -> bool:
    """Tell whether every value, with its sign and its relevance, only moves on in ``reader``."""
    return isinstance(reader.operator, _MOVES) and isinstance(rule, Pass | WinnerTakesAll)


def _is_relu(node: Node) -> bool:
    bounds = clip_bounds(node.operator)
    return bounds is not None and bounds[0] == 0


def _zero_at_zero(operator: Activation) -> bool:
    if operator.function == "power":
        return operator.parameter > 0
    return operator.function not in _POSITIVE


def _silent_at_zero(reader: Node, rule: Rule, silent: set[str]) -> bool:
    """Tell whether ``reader`` hands no relevance to an input that is exactly 0."""
    operator = reader.operator
    if isinstance(rule, Zero | Proportional | Taylor):
        return True
    if isinstance(rule, Epsilon | AlphaBeta | Gamma):
        return rule.bias != "distribute"
    if isinstance(operator, MatMul):
        return isinstance(rule, SignalTakesAll | HalfAndHalf)  # shares in proportion to values
    if isinstance(operator, BatchNorm | Embedding):
        return False  # passes on, and its value at 0 is the shift, or a row
    if isinstance(operator, Activation) and not _zero_at_zero(operator):
        return False
    if isinstance(operator, Clip) and not operator.low <= 0 <= operator.high:
        return False
    moves = isinstance(rule, Pass) or isinstance(operator, Maximum | MaxPool | Mul)
    return moves and reader.name in silent  # a zero stays a zero
