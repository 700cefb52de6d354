"""What each factor of a product of two branches takes of its relevance."""

from __future__ import annotations

from collections.abc import Mapping

from relprop import rules as r
from relprop.graph import (
    Activation,
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
    constant = [graph[source].constant for source in node.inputs]
    if constant[0] != constant[1]:
        return float(not constant[0]), float(constant[0])
    if isinstance(rule, r.SignalTakesAll):
        if rule.signal is not None:
            return float(rule.signal == 0), float(rule.signal == 1)
        gates = [_gate(graph, source) for source in node.inputs]
        if gates[0] != gates[1]:
            return float(gates[0] < gates[1]), float(gates[1] < gates[0])
    return 0.5, 0.5


def _gate(graph: Graph, name: str) -> int:
    """2 for what a quotient divides by, 1 for a sigmoid or softmax, 0 for any other factor.

    Whatever moved its values since.
    """
    node = graph[name]
    while isinstance(node.operator, Reshape | Permute | Slice | Identity):
        node = graph[node.inputs[0]]
    if isinstance(node.operator, Activation):
        if node.operator.function == "power" and node.operator.parameter < 0:
            return 2
        return int(node.operator.function in ("sigmoid", "hard_sigmoid"))
    return int(isinstance(node.operator, Softmax))


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
