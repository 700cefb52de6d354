"""What a Graph costs: how many parameters it holds and how many multiply-adds one sample takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from relprop.graph import Array, Conv, ConvTranspose, Dense, Graph, MatMul, Node, Shape

_POSITIONS: dict[type, Callable[[Shape, Shape], int]] = {
    Conv: lambda source, result: math.prod(result[1:]),
    ConvTranspose: lambda source, result: math.prod(source[1:]),
    Dense: lambda source, result: math.prod(result[:-1]),
}
"""How often a layer uses each of its weights, from the shapes of its input and its output."""


def parameters(node: Node) -> int:
    """Count the numbers that a node holds: weights, biases, scales, constants."""
    return sum(array.size for array in _arrays(node))


def total_parameters(graph: Graph) -> int:
    """Count the numbers that a graph holds; an array that several nodes share counts once."""
    arrays = {id(array): array for node in graph for array in _arrays(node)}
    return sum(array.size for array in arrays.values())


def multiply_adds(graph: Graph, node: Node) -> int:
    """Count the multiply-adds of a layer with weights or a matrix product; all else counts as 0."""
    if isinstance(node.operator, MatMul):
        return math.prod(node.shape) * graph[node.inputs[0]].shape[-1]
    positions = _POSITIONS.get(type(node.operator))
    if positions is None:
        return 0
    weight: Array = node.operator.weight  # type: ignore[union-attr]
    return weight.size * positions(graph[node.inputs[0]].shape, node.shape)


def _arrays(node: Node) -> list[Array]:
    values = (getattr(node.operator, f.name) for f in dataclasses.fields(node.operator))
    return [value for value in values if isinstance(value, np.ndarray)]
