"""What each factor of a product of two branches takes of its relevance."""

from __future__ import annotations

from collections.abc import Mapping

from relprop import rules as r
from relprop.graph import (
    Activation,
    Constant,
    Graph,
    Identity,
    MatMul,
    Mul,
    Node,
    Permute,
    Reshape,
    Slice,
    Softmax,
)


def shares(graph: Graph, rule: r.Rule, node: Node) -> tuple[float, float] | None:
    """What each factor of a product takes of its relevance; None: the gradient."""
    if isinstance(rule, r.Gradient):
        return None
    constant = [isinstance(graph[s].operator, Constant) for s in node.inputs]
    if any(constant):
        return float(not constant[0]), float(constant[0])
    if isinstance(rule, r.SignalTakesAll):
        if rule.signal is not None:
            return float(rule.signal == 0), float(rule.signal == 1)
        gate = [_is_gate(graph, source) for source in node.inputs]
        if gate[0] != gate[1]:
            return float(gate[1]), float(gate[0])
    return 0.5, 0.5


def _is_gate(graph: Graph, name: str) -> bool:
    """Whether a factor is a sigmoid or a softmax, whatever moved its values since."""
    node = graph[name]
    while isinstance(node.operator, Reshape | Permute | Slice | Identity):
        node = graph[node.inputs[0]]
    if isinstance(node.operator, Activation):
        return node.operator.function in ("sigmoid", "hard_sigmoid")
    return isinstance(node.operator, Softmax)


def unreached(graph: Graph, rules: Mapping[str, r.Rule]) -> set[str]:
    """Names of the nodes at which no relevance arrives, as all that read them hand down none.

    What leads to nothing but the gates of products: queries and keys where values take all.
    """
    readers = graph.consumers()
    known: set[str] = set()

    def hands_nothing(reader: Node, source: str) -> bool:
        rule = rules[reader.name]
        if reader.name in known or isinstance(rule, r.Zero):
            return True
        if not isinstance(reader.operator, Mul | MatMul):
            return False
        taken = shares(graph, rule, reader) or (1.0, 1.0)
        return all(share == 0 for name, share in zip(reader.inputs, taken) if name == source)

    for node in reversed(list(graph)):
        if node.name != graph.output and all(
            hands_nothing(reader, node.name) for reader in readers[node.name]
        ):
            known.add(node.name)
    return known
