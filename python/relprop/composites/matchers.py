"""Matchers: what selects the nodes of a Graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import get_args

from relprop.composites.applicable import LAYERS
from relprop.graph import Embedding, Graph, Node, Operator

_OPERATORS: dict[str, type] = {operator.__name__: operator for operator in get_args(Operator)}


@dataclass(frozen=True)
class First:
    """Matches the layers that touch an input: those reached without passing another layer.

    Behind an Embedding no layer touches the input: it reads learned vectors.
    """

    types: tuple[type, ...] = LAYERS


Matcher = str | int | type | tuple[type, ...] | First | Callable[[Node], bool]
"""What selects nodes.

A node's name or an operator type's name; the position of a layer with weights (Conv, Dense)
in the graph's order, negative from the end; operator types, of which ``object`` is every one;
:class:`First`; a predicate.
"""


def select(matcher: Matcher, graph: Graph) -> set[str]:
    """Names of the nodes that a matcher selects."""
    if isinstance(matcher, First):
        return {n.name for n in _touching_input(graph) if isinstance(n.operator, matcher.types)}
    if isinstance(matcher, (type, tuple)):
        return {node.name for node in graph if isinstance(node.operator, matcher)}
    if isinstance(matcher, str):
        return _select_by_name(matcher, graph)
    if isinstance(matcher, int):
        layers = [n.name for n in graph if isinstance(n.operator, LAYERS) and not n.constant]
        if not -len(layers) <= matcher < len(layers):
            raise ValueError(
                f"position {matcher} selects nothing: the graph has {len(layers)} layers with "
                "weights (convolutions and Dense), counted from 0."
            )
        return {layers[matcher]}
    return {node.name for node in graph if matcher(node)}


def _select_by_name(name: str, graph: Graph) -> set[str]:
    if name in graph.nodes:
        return {name}
    if name in _OPERATORS:
        return select(_OPERATORS[name], graph)
    close = get_close_matches(name, [*graph.nodes, *_OPERATORS], n=5)
    hint = f"did you mean {', '.join(close)}?" if close else "print(graph) lists the nodes."
    raise ValueError(f"{name!r} is neither a node's name nor an operator type; {hint}")


def _touching_input(graph: Graph) -> list[Node]:
    """Layers with weights that read an input, directly or through nodes without weights."""
    unweighted = {node.name for node in graph.inputs}  # reached without passing a layer
    touching = []
    for node in graph:
        if unweighted.isdisjoint(node.inputs) or node.constant:
            continue
        if isinstance(node.operator, LAYERS):
            touching.append(node)
        elif not isinstance(node.operator, Embedding):
            unweighted.add(node.name)
    return touching


def describe(matcher: Matcher) -> str:
    """Say in words which nodes a matcher selects."""
    if isinstance(matcher, First):
        return f"first {describe(matcher.types)}"
    if isinstance(matcher, tuple):
        return ", ".join(kind.__name__ for kind in matcher)
    if isinstance(matcher, type):
        return "every node" if matcher is object else matcher.__name__
    if isinstance(matcher, str):
        return repr(matcher)
    if isinstance(matcher, int):
        return f"layer {matcher}"
    return f"predicate {getattr(matcher, '__name__', repr(matcher))}"
