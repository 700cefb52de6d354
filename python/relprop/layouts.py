"""How the core stores each node's tensor: an image channels last, anything else in its own order.

Tensors of three or four axes are images, (channels, height, width) or with a depth. One of two
axes may be (channels, length) or rows of features, which its neighbours in the Graph decide.
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
    Graph,
    LocalResponseNorm,
    Maximum,
    MaxPool,
    Mul,
    PReLU,
    Shape,
)

Extent = tuple[int, int, int, int]
"""Depth, height, width and channels."""

_SPATIAL = (Conv, ConvTranspose, MaxPool, AvgPool, AdaptiveAvgPool, BatchNorm, LocalResponseNorm)
"""What works along the axes behind the first, or tells entries of the first apart."""

_ELEMENTWISE = (Activation, Clip, PReLU, Add, Mul, Maximum, Concat)
"""What computes in the order in which its inputs are stored."""


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

    Two axes are channels and a length where an operator over space, or one per channel, reads
    or writes the tensor or another that elementwise operators tie to it.
    """
    last = {node.name for node in graph if len(node.shape) in (3, 4)}
    groups = [
        (isinstance(node.operator, _SPATIAL), names)
        for node in graph
        if isinstance(node.operator, _SPATIAL + _ELEMENTWISE)
        and (names := {n for n in (node.name, *node.inputs) if len(graph[n].shape) == 2})
    ]
    size = -1
    while len(last) > size:
        size = len(last)
        for spatial, names in groups:
            if spatial or names & last:
                last |= names
    return {node.name: Layout(node.shape, node.name in last) for node in graph}
