"""Compiles a Graph and its rules to a Plan of the core.

What each operator becomes is said in ``lowering/``; how the core stores each tensor is decided in
``layouts.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relprop import _core
from relprop import rules as r
from relprop.devices import Precision
from relprop.graph import Graph
from relprop.lowering import (
    attention,
    linear,
    merge,
    move,
    norm,
    pointwise,
    pool,
    sources,
    upsampling,
)
from relprop.lowering.lowering import Lowering, Table

_LOWER: Table = {
    **sources.TABLE,
    **linear.TABLE,
    **pool.TABLE,
    **upsampling.TABLE,
    **norm.TABLE,
    **pointwise.TABLE,
    **merge.TABLE,
    **attention.TABLE,
    **move.TABLE,
}


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
    plan = _core.Plan(gpu, precision)
    lowering = Lowering(_alive(graph), rules, plan)
    tensors = lowering.tensors
    step_nodes: list[str] = []
    for node in lowering.graph:
        if node.name in tensors:
            continue
        tensors[node.name] = _LOWER[type(node.operator)](lowering, node)
        step_nodes += [node.name] * (plan.steps - len(step_nodes))
        fused = lowering.fused.get(node.name)
        if fused is not None and lowering.activation_rule(fused) == "pass":
            tensors[fused] = tensors[node.name]
    plan.finish(tensors[lowering.graph.output])
    return Compiled(
        plan,
        tensors,
        frozenset(lowering.fused),
        tuple(step_nodes),
        tuple(node.name for node in lowering.graph.inputs),
    )


def _alive(graph: Graph) -> Graph:
    """The nodes that the output depends on, without inputs that it does not."""
    graph = graph.pruned()
    readers = graph.consumers()
    unread = {n.name for n in graph.inputs if not readers[n.name] and n.name != graph.output}
    if len(unread) == len(graph.inputs):
        raise ValueError(f"the output {graph.output!r} depends on no input.")
    nodes = {name: node for name, node in graph.nodes.items() if name not in unread}
    return Graph(nodes, graph.outputs)
