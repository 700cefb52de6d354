"""Which rules an operator can have, and operators in groups that have the same."""

from __future__ import annotations

from relprop.graph import (
    Activation,
    AdaptiveAvgPool,
    Add,
    AvgPool,
    BatchNorm,
    Clip,
    Concat,
    Constant,
    Conv,
    ConvTranspose,
    Dense,
    Embedding,
    GroupNorm,
    Identity,
    Input,
    LayerNorm,
    LocalResponseNorm,
    Mask,
    MatMul,
    Maximum,
    MaxPool,
    Mean,
    Mul,
    Node,
    Pad,
    Permute,
    PReLU,
    Reshape,
    Slice,
    Softmax,
    UpsampleBilinear2d,
    UpsampleNearest2d,
)
from relprop.rules import (
    AlphaBeta,
    Deconvolution,
    Epsilon,
    Flat,
    Gamma,
    Gradient,
    GuidedBackprop,
    HalfAndHalf,
    Pass,
    Proportional,
    Rule,
    SignalTakesAll,
    Taylor,
    WinnerTakesAll,
    WSquare,
    ZBox,
    Zero,
)

CONVOLUTIONS = (Conv, ConvTranspose)
LAYERS = (*CONVOLUTIONS, Dense)
"""The layers with weights: what "first linear layer" and integer positions count."""

CONSTANT_WEIGHTS = (AvgPool, AdaptiveAvgPool, UpsampleBilinear2d, Mean, Add)
MOVES = (Embedding, Identity, Reshape, Permute, Slice, Pad, Concat, UpsampleNearest2d)
ACTIVATIONS = (Activation, Clip, PReLU)
NORMS = (LayerNorm, GroupNorm)
PRODUCTS = (Mul, MatMul)
WITHOUT_RULE = (Input, Constant)

APPLICABLE: dict[type, tuple[type, ...]] = {
    **dict.fromkeys(LAYERS, (Epsilon, AlphaBeta, Gamma, ZBox, WSquare, Flat, Gradient, Zero)),
    **dict.fromkeys((*CONSTANT_WEIGHTS, *NORMS), (Epsilon, Gradient, Zero)),
    **dict.fromkeys(ACTIVATIONS, (Pass, Gradient, Deconvolution, GuidedBackprop, Zero)),
    **dict.fromkeys(MOVES, (Pass, Gradient, Zero)),
    Embedding: (Pass, Zero),
    Mask: (Zero,),
    BatchNorm: (Epsilon, Pass, Gradient, Zero),
    MaxPool: (WinnerTakesAll, Proportional, Gradient, Zero),
    LocalResponseNorm: (Pass, Taylor, Gradient, Zero),
    Maximum: (WinnerTakesAll, Gradient, Zero),
    **dict.fromkeys(PRODUCTS, (SignalTakesAll, HalfAndHalf, Gradient, Zero)),
    Softmax: (Taylor, Gradient, Zero),
}
"""Which rules an operator can have."""


def problem_of(node: Node, rule: Rule | None) -> str:
    """Say what is wrong with a node's rule; an empty string where nothing is."""
    applicable = APPLICABLE[type(node.operator)]
    where = f"{node.name} ({node.type})"
    if rule is None:
        return f"{where}: no entry matches."
    if not isinstance(rule, applicable):
        known = ", ".join(kind.__name__ for kind in applicable)
        return f"{where}: {rule} does not apply; its rules are {known}."
    if not isinstance(node.operator, LAYERS) and getattr(rule, "bias", "absorb") != "absorb":
        return f"{where}: {rule} does not apply; bias must be 'absorb' there."
    return ""
