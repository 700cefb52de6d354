"""The part of a classifier that computes the score of one class alone."""

from __future__ import annotations

from dataclasses import replace

from relprop.canonizers import rewritten
from relprop.costs import multiply_adds
from relprop.graph import (
    Activation,
    AdaptiveAvgPool,
    AvgPool,
    Clip,
    Conv,
    Dense,
    Graph,
    Identity,
    MaxPool,
    Mean,
    Node,
    Operator,
    Reshape,
)

_BY_CHANNEL = (Activation, Clip, Identity, AvgPool, AdaptiveAvgPool, MaxPool)
"""What computes each channel of its output of that channel of its input."""


def for_class(graph: Graph, index: int) -> Graph | None:
    """Return the graph with one score, (1,), in place of the output's vector of scores.

    The layer that the scores come from keeps one of its channels, where nothing but what works
    channel by channel follows it. None where the network ends otherwise.

    Raises
    ------
    ValueError
        If the output is no vector, or has no such score.
    """
    shape = graph[graph.output].shape
    if len(shape) != 1 or not 0 <= index < shape[0]:
        raise ValueError(f"index must be that of a score in an output of {shape}, not {index}.")
    ending = _ending(graph)
    if ending is None:
        return None
    layer, *others = ending
    operators: dict[str, Operator] = {layer.name: _one_channel(layer.operator, index)}
    for node in others:
        if isinstance(node.operator, Reshape):
            operators[node.name] = Reshape((1, *node.shape[1:]))
    return rewritten(graph, operators, {})


def share_of_classes(graph: Graph) -> float:
    """Return which part of the network's multiply-adds :func:`for_class` spares, all but one."""
    ending = _ending(graph)
    total = sum(multiply_adds(graph, node) for node in graph)
    return 0.0 if ending is None or not total else multiply_adds(graph, ending[0]) / total


def _ending(graph: Graph) -> list[Node] | None:
    """The layer that the scores come from, and the nodes from there to the output."""
    readers = graph.consumers()
    node, ending = graph[graph.output], [graph[graph.output]]
    while not isinstance(node.operator, (Conv, Dense)):
        if not _keeps_channels(graph, node):
            return None
        node = graph[node.inputs[0]]
        if len(readers[node.name]) != 1:
            return None
        ending.insert(0, node)
    if isinstance(node.operator, Conv):
        return ending if node.operator.groups == 1 else None
    return ending if len(node.shape) == 1 else None


def _keeps_channels(graph: Graph, node: Node) -> bool:
    if isinstance(node.operator, Mean):
        return 0 not in node.operator.axes
    if isinstance(node.operator, Reshape):
        return node.shape[0] == graph[node.inputs[0]].shape[0]
    return isinstance(node.operator, _BY_CHANNEL)


def _one_channel(operator: Operator, index: int) -> Operator:
    assert isinstance(operator, (Conv, Dense))
    one = slice(index, index + 1)
    bias = None if operator.bias is None else operator.bias[one].copy()
    return replace(operator, weight=operator.weight[one].copy(), bias=bias)
