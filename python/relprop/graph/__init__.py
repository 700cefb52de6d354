"""The Graph: a model as nodes with operators of a small closed set, without any framework.

Shapes leave the batch axis out: an image is ``(channels, height, width)``, a vector
``(features,)``; every axis that an operator names counts without the batch as well. Operators
over space take one setting per spatial axis, in the order of the shape; their number is that of
the axes. Parameters are float32 numpy arrays.
"""

from __future__ import annotations

from relprop.graph.graph import Graph, Node
from relprop.graph.operators import (
    MOST_IDS,
    Activation,
    AdaptiveAvgPool,
    Add,
    AvgPool,
    BatchNorm,
    Clip,
    Concat,
    Constant,
    Content,
    Conv,
    ConvTranspose,
    Dense,
    Embedding,
    Function,
    Identity,
    Input,
    LocalResponseNorm,
    Maximum,
    MaxPool,
    Mean,
    Mul,
    Operator,
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
from relprop.graph.shapes import MOST_VALUES, Array, Padding, Pair, Shape, Sizes

__all__ = [
    "MOST_IDS",
    "MOST_VALUES",
    "Activation",
    "AdaptiveAvgPool",
    "Add",
    "Array",
    "AvgPool",
    "BatchNorm",
    "Clip",
    "Concat",
    "Constant",
    "Content",
    "Conv",
    "ConvTranspose",
    "Dense",
    "Embedding",
    "Function",
    "Graph",
    "Identity",
    "Input",
    "LocalResponseNorm",
    "MaxPool",
    "Maximum",
    "Mean",
    "Mul",
    "Node",
    "Operator",
    "PReLU",
    "Pad",
    "Padding",
    "Pair",
    "Permute",
    "Reshape",
    "Shape",
    "Sizes",
    "Slice",
    "Softmax",
    "UpsampleBilinear2d",
    "UpsampleNearest2d",
    "clip_bounds",
]
