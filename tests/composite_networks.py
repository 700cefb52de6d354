"""Small Graphs that composites give rules: every kind of node, and a dense layer at the input."""

from __future__ import annotations

import numpy as np

from relprop.graph import (
    Activation,
    AdaptiveAvgPool,
    Add,
    BatchNorm,
    Concat,
    Constant,
    Conv,
    Dense,
    Graph,
    Input,
    LocalResponseNorm,
    MaxPool,
    Mul,
    Reshape,
)


def conv(out: int, into: int) -> Conv:
    return Conv(np.ones((out, into, 1, 1), np.float32))


def network() -> Graph:
    """Two convolutions touch the input, one through a batch norm; a residual, a gate, a head."""
    graph = Graph()
    graph.add("input", Input((3, 4, 4)))
    graph.add("norm", BatchNorm(np.ones(3, np.float32), np.zeros(3, np.float32)), ["input"])
    graph.add("left", conv(2, 3), ["norm"])
    graph.add("right", conv(2, 3), ["input"])
    graph.add("relu", Activation("relu"), ["left"])
    graph.add("lrn", LocalResponseNorm(5), ["relu"])
    graph.add("sum", Add(), ["lrn", "right"])
    graph.add("inner", conv(2, 2), ["sum"])
    graph.add("sigmoid", Activation("sigmoid"), ["inner"])
    graph.add("gate", Mul(), ["sum", "sigmoid"])
    graph.add("concat", Concat(), ["gate", "right"])
    graph.add("pool", MaxPool((2, 2), (2, 2)), ["concat"])
    graph.add("mean", AdaptiveAvgPool((1, 1)), ["pool"])
    graph.add("flatten", Reshape((4,)), ["mean"])
    graph.add("offset", Constant(np.ones(4, np.float32)))
    graph.add("shifted", Add(), ["flatten", "offset"])
    graph.add("head", Dense(np.ones((2, 4), np.float32)), ["shifted"])
    return graph


def dense_first() -> Graph:
    graph = Graph()
    graph.add("input", Input((3,)))
    graph.add("first", Dense(np.ones((2, 3), np.float32)), ["input"])
    graph.add("second", Dense(np.ones((2, 2), np.float32)), ["first"])
    return graph
