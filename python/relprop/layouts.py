"""How the core stores each node's tensor: an image channels last, anything else in its own order.

A tensor of two to four axes is an image, (channels, height, width) or with fewer or more axes in
space, or rows of features, such as tokens. Its neighbours in the Graph decide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    Identity,
    LayerNorm,
    LocalResponseNorm,
    MatMul,
    Maximum,
    MaxPool,
    Mul,
    Permute,
    PReLU,
    Reshape,
    Shape,
    Slice,
    Softmax,
    UpsampleBilinear2d,
    UpsampleNearest2d,
)

Extent = tuple[int, int, int, int]
"""Depth, height, width and channels."""

_SPATIAL = (
    Conv,
    ConvTranspose,
    MaxPool,
    AvgPool,
    AdaptiveAvgPool,
    UpsampleNearest2d,
    UpsampleBilinear2d,
    BatchNorm,
    GroupNorm,
    LocalResponseNorm,
)
"""What works along the axes behind the first, or tells entries of the first apart."""

_ROWS = (Dense, LayerNorm, Softmax, MatMul)
"""What works along the last axes."""

_ELEMENTWISE = (Activation, Clip, PReLU, Add, Mul, Maximum, Concat)
"""What computes in the order in which its inputs are stored."""

_MOVES = (Slice, Reshape, Permute, Identity)
"""What may do nothing where its output is stored as its input is."""


@dataclass(frozen=True)
class Layout:
    """A tensor's shape, and whether the core stores its first axis last."""

    shape: Shape
    channels_last: bool

    @property
    def extent(self) -> Extent:
        """The image under which the core stores the tensor; missing axes are 1."""
        if not self.channels_last:
            return 1, 1, math.prod(self.shape[:-1]), self.shape[-1] if self.shape else 1
        depth, height, width = (1,) * (4 - len(self.shape)) + self.shape[1:]
        return depth, height, width, self.shape[0]

    @property
    def order(self) -> Shape:
        """The shape with its axes as they are stored."""
        return (*self.shape[1:], self.shape[0]) if self.channels_last else self.shape

    def stored(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values of this shape as they are stored, flat."""
        return (np.moveaxis(values, 0, -1) if self.channels_last else values).ravel()

    def places(self) -> NDArray[np.int32]:
        """For each element, in the Graph's order, its place in the core's memory."""
        places = np.arange(math.prod(self.shape), dtype=np.int32).reshape(self.order)
        return np.moveaxis(places, -1, 0) if self.channels_last else places


def layouts(graph: Graph) -> Mapping[str, Layout]:
    """Decide on the layout of every node's tensor.

    Tensors that elementwise operators tie to each other have one. It is channels last where an
    operator over space, or one per channel, reads or writes any of them; in the axes' own order
    where one over the last axes does. Where neither does, what only moves values follows its
    input, tensors of two axes are in their own order, and all others channels last.
    """
    group = _groups(graph)
    spatial, rows = (_touched(graph, group, operators) for operators in (_SPATIAL, _ROWS))
    decided: dict[str, bool] = {}
    found: dict[str, Layout] = {}
    for node in graph:
        axes, name = len(node.shape), group[node.name]
        if name not in decided:
            if name in spatial or name in rows:
                decided[name] = name in spatial
            else:
                decided[name] = axes > 2 and not (
                    isinstance(node.operator, _MOVES) and _in_rows(found[node.inputs[0]])
                )
        found[node.name] = Layout(node.shape, axes in (2, 3, 4) and decided[name])
    return found


def _in_rows(layout: Layout) -> bool:
    """Whether a tensor that could be stored channels last is not."""
    return len(layout.shape) in (2, 3, 4) and not layout.channels_last


def _groups(graph: Graph) -> Mapping[str, str]:
    """For each node one of those that elementwise operators tie to it, the same for all of them."""
    parent = {node.name: node.name for node in graph}

    def leader(name: str) -> str:
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    for node in graph:
        if isinstance(node.operator, _ELEMENTWISE):
            for source in node.inputs:
                if len(graph[source].shape) == len(node.shape):
                    parent[leader(source)] = leader(node.name)
    return {name: leader(name) for name in parent}


def _touched(graph: Graph, group: Mapping[str, str], operators: tuple[type, ...]) -> set[str]:
    """Groups of tensors that such operators read or write."""
    return {
        group[name]
        for node in graph
        if isinstance(node.operator, operators)
        for name in (node.name, *node.inputs)
    }
