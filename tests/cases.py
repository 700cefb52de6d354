"""Layers, shapes and rules: the one list that kernel tests and benchmarks share.

``CASES`` are literal and readable; the strategies below draw the corners that nobody lists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from hypothesis import strategies as st
from numpy.random import Generator

from relprop import graph as g
from relprop import rules
from relprop.composites import RULES_ALONE

Kind = Literal["normal", "sparse", "grid", "nonnegative"]
"""How numbers are drawn; grid numbers sum without rounding, so zeros and ties are exact."""


def numbers(rng: Generator, shape: tuple[int, ...], kind: Kind = "normal") -> g.Array:
    """Random float32 numbers of the given kind."""
    x = rng.standard_normal(shape)
    if kind == "sparse":
        x = x * (rng.random(shape) < 0.4)
    elif kind == "grid":
        x = rng.integers(-4, 5, shape) / 4
    elif kind == "nonnegative":
        x = np.maximum(x, 0)
    return x.astype(np.float32)


# --- Literal cases -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A layer on an input shape, built from a random generator."""

    name: str
    shape: g.Shape
    layer: Callable[[Generator], g.Operator]

    def __str__(self) -> str:
        return self.name


def conv(
    inputs: int,
    outputs: int,
    kernel: g.Sizes | int,
    *,
    bias: bool = True,
    padding: g.Padding | int = 0,
    groups: int = 1,
    **geometry: g.Sizes,
) -> Callable[[Generator], g.Conv]:
    """A convolution with weights of He's scale; of images where ``kernel`` is a number."""
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    pads = ((padding, padding),) * len(size) if isinstance(padding, int) else padding
    shape = (outputs, inputs // groups, *size)

    def build(rng: Generator) -> g.Conv:
        scale = np.float32(np.sqrt(2 / np.prod(shape[1:])))
        weight = numbers(rng, shape) * scale
        shift = numbers(rng, (outputs,)) * np.float32(0.1) if bias else None
        return g.Conv(weight, shift, padding=pads, groups=groups, **geometry)

    return build


def conv_transpose(
    inputs: int,
    outputs: int,
    kernel: g.Sizes | int,
    *,
    bias: bool = True,
    padding: int = 0,
    groups: int = 1,
    **geometry: g.Sizes,
) -> Callable[[Generator], g.ConvTranspose]:
    """A transposed convolution; of images where ``kernel`` is a number."""
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    pads = ((padding, padding),) * len(size)

    def build(rng: Generator) -> g.ConvTranspose:
        weight = numbers(rng, (inputs, outputs // groups, *size)) * np.float32(0.3)
        shift = numbers(rng, (outputs,)) * np.float32(0.1) if bias else None
        return g.ConvTranspose(weight, shift, padding=pads, groups=groups, **geometry)

    return build


def dense(inputs: int, outputs: int, *, bias: bool = True) -> Callable[[Generator], g.Dense]:
    """A dense layer with weights of He's scale."""

    def build(rng: Generator) -> g.Dense:
        weight = numbers(rng, (outputs, inputs)) * np.float32(np.sqrt(2 / inputs))
        return g.Dense(weight, numbers(rng, (outputs,)) * np.float32(0.1) if bias else None)

    return build


def batch_norm(channels: int) -> Callable[[Generator], g.BatchNorm]:
    """A batch norm that stands alone."""
    return lambda rng: g.BatchNorm(numbers(rng, (channels,)), numbers(rng, (channels,)))


def layer_norm(
    *shape: int, bias: bool = True, centred: bool = True
) -> Callable[[Generator], g.LayerNorm]:
    """A layer norm over axes of this shape."""

    def build(rng: Generator) -> g.LayerNorm:
        shift = numbers(rng, shape) if bias else None
        return g.LayerNorm(numbers(rng, shape), shift, 1e-5, centred)

    return build


def group_norm(channels: int, groups: int) -> Callable[[Generator], g.GroupNorm]:
    """A group norm of so many channels."""
    return lambda rng: g.GroupNorm(groups, numbers(rng, (channels,)), numbers(rng, (channels,)))


def fixed(operator: g.Operator) -> Callable[[Generator], g.Operator]:
    """A layer without parameters."""
    return lambda rng: operator


CONVOLUTIONS = [
    Case("conv 3x3", (8, 9, 7), conv(8, 16, 3, padding=1)),
    Case("conv 3x3 without bias", (8, 9, 7), conv(8, 16, 3, padding=1, bias=False)),
    Case("conv 1x1", (16, 6, 6), conv(16, 24, 1)),
    Case("conv 1x1 strided", (16, 7, 7), conv(16, 24, 1, stride=(2, 2))),
    Case("conv 7x7 first layer", (3, 21, 23), conv(3, 13, 7, stride=(2, 2), padding=3)),
    Case("conv 11x11 first layer", (3, 31, 31), conv(3, 8, 11, stride=(4, 4), padding=2)),
    Case(
        "conv asymmetric padding", (5, 8, 8), conv(5, 7, 3, stride=(2, 2), padding=((0, 1), (0, 1)))
    ),
    Case("conv dilated", (6, 11, 11), conv(6, 9, 3, dilation=(2, 3), padding=((2, 2), (3, 3)))),
    # a row of the kernel is a whole number of vectors, its channels are not
    Case("conv 2x2 of 8 to few channels", (8, 6, 7), conv(8, 3, 2, padding=1)),
    Case("conv 4x4 of 4 to few channels", (4, 6, 7), conv(4, 2, 4, padding=1)),
    Case("conv grouped", (12, 6, 7), conv(12, 18, 3, groups=3, padding=1)),
    Case("conv depthwise", (17, 8, 8), conv(17, 17, 3, groups=17, padding=1)),
    Case(
        "conv depthwise strided 5x5",
        (16, 9, 9),
        conv(16, 16, 5, groups=16, padding=((1, 2), (1, 2)), stride=(2, 2)),
    ),
    Case("conv depthwise multiplied", (5, 6, 6), conv(5, 15, 3, groups=5)),
    Case("conv 1x3", (7, 6, 8), conv(7, 11, (1, 3), padding=((0, 0), (1, 1)))),
    Case("conv single channel", (1, 5, 5), conv(1, 1, 3)),
    Case("conv on one pixel", (31, 1, 1), conv(31, 37, 1)),
    Case("conv 3x3 on one pixel", (4, 1, 1), conv(4, 3, 3, padding=1)),
    Case("conv wide", (64, 4, 4), conv(64, 80, 3, padding=1)),
    Case("conv of a signal", (17, 20), conv(17, 9, (5,), padding=2)),
    Case("conv of a signal first layer", (1, 50), conv(1, 8, (16,), stride=(4,), padding=6)),
    Case("conv of a signal depthwise", (17, 15), conv(17, 17, (3,), groups=17, dilation=(3,))),
    Case("conv of one feature over time", (9, 1), conv(9, 4, (1,))),
    Case("conv of a volume", (4, 5, 6, 4), conv(4, 6, (3, 3, 3), padding=1)),
    Case(
        "conv of a volume strided",
        (18, 6, 7, 8),
        conv(18, 10, (3, 5, 3), stride=(2, 1, 3), padding=((0, 1), (2, 2), (1, 0))),
    ),
    Case(
        "conv of a volume grouped",
        (6, 5, 5, 5),
        conv(6, 9, (2, 2, 2), groups=3, dilation=(2, 1, 2)),
    ),
    Case("conv of a volume depthwise", (17, 4, 3, 5), conv(17, 17, (3, 1, 3), groups=17)),
]
TRANSPOSED_CONVOLUTIONS = [
    Case("transposed 2x2 strided", (8, 5, 4), conv_transpose(8, 6, 2, stride=(2, 2))),
    Case("transposed 3x3", (5, 4, 6), conv_transpose(5, 7, 3, padding=1)),
    Case(
        "transposed output padding",
        (6, 3, 3),
        conv_transpose(6, 4, 3, stride=(2, 3), padding=1, output_padding=(1, 2)),
    ),
    Case("transposed to few channels", (20, 6, 6), conv_transpose(20, 3, 4, stride=(2, 2))),
    Case("transposed from few channels", (2, 6, 6), conv_transpose(2, 17, 3, stride=(2, 1))),
    Case("transposed grouped", (6, 5, 5), conv_transpose(6, 9, 3, groups=3, stride=(2, 2))),
    Case("transposed depthwise", (17, 5, 5), conv_transpose(17, 17, 4, groups=17, stride=(2, 2))),
    Case("transposed dilated", (4, 5, 5), conv_transpose(4, 5, 3, dilation=(2, 1), bias=False)),
    Case("transposed of a signal", (5, 9), conv_transpose(5, 7, (4,), stride=(2,), padding=1)),
    Case(
        "transposed of a volume",
        (4, 3, 2, 4),
        conv_transpose(4, 5, (2, 3, 2), stride=(2, 1, 3), output_padding=(1, 0, 2)),
    ),
    Case("transposed sparse stride", (4, 3, 3), conv_transpose(4, 5, 2, stride=(3, 3))),
]
DENSE = [
    Case("dense", (40,), dense(40, 30)),
    Case("dense without bias", (40,), dense(40, 30, bias=False)),
    Case("dense to one", (13,), dense(13, 1)),
    Case("dense from one", (1,), dense(1, 7)),
    Case("dense prime", (127,), dense(127, 61)),
    Case("dense wide", (512,), dense(512, 100)),
    Case("dense of many features", (1043,), dense(1043, 103)),
    Case("dense of few features", (5,), dense(5, 131)),
    Case("dense on the last axis", (3, 4, 10), dense(10, 6)),
]
POOL = [
    Case("max 2x2", (5, 8, 8), fixed(g.MaxPool((2, 2), (2, 2)))),
    Case("max 3x3 ceil", (16, 8, 9), fixed(g.MaxPool((3, 3), (2, 2), ceil_mode=True))),
    Case("max 3x3 ceil on 2x2", (5, 2, 2), fixed(g.MaxPool((3, 3), (2, 2), ceil_mode=True))),
    Case("max 3x3 ceil on 2x9", (32, 2, 9), fixed(g.MaxPool((3, 3), (2, 2), ceil_mode=True))),
    Case("max 3x3 padded", (7, 9, 8), fixed(g.MaxPool((3, 3), (1, 1), ((1, 1), (1, 1))))),
    Case("max dilated", (3, 9, 9), fixed(g.MaxPool((2, 3), (2, 1), dilation=(3, 2)))),
    Case("max asymmetric", (3, 8, 8), fixed(g.MaxPool((3, 3), (2, 2), ((0, 1), (0, 1))))),
    Case("average 2x2", (5, 8, 8), fixed(g.AvgPool((2, 2), (2, 2)))),
    Case("average 3x3 counting", (6, 7, 7), fixed(g.AvgPool((3, 3), (2, 2), ((1, 1), (1, 1))))),
    Case(
        "average 3x3 not counting",
        (6, 7, 7),
        fixed(g.AvgPool((3, 3), (2, 2), ((1, 1), (1, 1)), count_include_pad=False)),
    ),
    Case(
        "average ceil",
        (4, 8, 8),
        fixed(g.AvgPool((3, 3), (2, 2), ((1, 1), (1, 1)), ceil_mode=True)),
    ),
    Case(
        "average larger than the image",
        (4, 2, 9),
        fixed(g.AvgPool((5, 5), (3, 2), ((0, 1), (2, 2)), ceil_mode=True)),
    ),
    Case("average divisor", (4, 6, 6), fixed(g.AvgPool((3, 3), (3, 3), divisor=4))),
    Case("global average", (33, 7, 7), fixed(g.AdaptiveAvgPool((1, 1)))),
    Case("adaptive average", (6, 7, 9), fixed(g.AdaptiveAvgPool((3, 4)))),
    Case("max of a signal", (5, 11), fixed(g.MaxPool((3,), (2,), ((1, 1),), ceil_mode=True))),
    Case("max of a volume", (5, 4, 6, 5), fixed(g.MaxPool((2, 3, 2), (2, 1, 1)))),
    Case(
        "max deeper than the volume",
        (5, 1, 6, 5),
        fixed(g.MaxPool((2, 3, 3), (2, 1, 1), ceil_mode=True)),
    ),
    Case("average of a signal", (17, 9), fixed(g.AvgPool((4,), (3,), ((2, 1),)))),
    Case(
        "average of a volume",
        (3, 5, 4, 4),
        fixed(g.AvgPool((3, 2, 2), (2, 2, 1), ((1, 1), (0, 1), (1, 0)), count_include_pad=False)),
    ),
    Case("adaptive average of a signal", (6, 10), fixed(g.AdaptiveAvgPool((4,)))),
    Case("global average of a volume", (6, 3, 4, 5), fixed(g.AdaptiveAvgPool((1, 1, 1)))),
    Case("mean over image", (9, 4, 5), fixed(g.Mean((1, 2)))),
    Case("mean over channels", (9, 4, 5), fixed(g.Mean((0,), keepdims=True))),
]
NORM = [
    Case("batch norm", (11, 5, 4), batch_norm(11)),
    Case("batch norm of a vector", (19,), batch_norm(19)),
    Case("batch norm of a signal", (7, 6), batch_norm(7)),
    Case("batch norm of a volume", (5, 2, 3, 4), batch_norm(5)),
    Case("response norm", (13, 4, 5), fixed(g.LocalResponseNorm(5, 1e-1, 0.75, 1.0))),
    Case("response norm even", (6, 3, 3), fixed(g.LocalResponseNorm(4, 0.5, 0.5, 2.0))),
    Case("response norm wider than channels", (2, 3, 3), fixed(g.LocalResponseNorm(7, 1.0))),
    Case(
        "response norm within channels",
        (4, 6, 5),
        fixed(g.LocalResponseNorm(3, 0.8, within_channel=True)),
    ),
]
LAYER_NORM = [
    Case("layer norm", (5, 24), layer_norm(24)),
    Case("layer norm of a vector", (37,), layer_norm(37)),
    Case("layer norm without bias", (3, 4, 10), layer_norm(10, bias=False)),
    Case("layer norm over two axes", (3, 4, 10), layer_norm(4, 10)),
    Case("layer norm of one value", (6, 1), layer_norm(1)),
    Case("layer norm wide", (2, 1200), layer_norm(1200)),
    Case("rms norm", (5, 24), layer_norm(24, bias=False, centred=False)),
    Case("group norm", (6, 4, 5), group_norm(6, 3)),
    Case("group norm of one group", (4, 3), group_norm(4, 1)),
    Case("instance norm", (5, 6, 7), group_norm(5, 5)),
    Case("group norm of a volume", (4, 2, 3, 4), group_norm(4, 2)),
]
CASES = [*CONVOLUTIONS, *DENSE, *POOL, *NORM]

BIAS_MODES: tuple[rules.Bias, ...] = ("absorb", "exclude", "distribute")
LINEAR_RULES: list[rules.Rule] = [
    rules.Epsilon(0.1),
    rules.Epsilon(1e-6),
    *(rules.Epsilon(0.1, bias) for bias in BIAS_MODES[1:]),
    *(rules.ZPlus(bias) for bias in BIAS_MODES),
    *(rules.AlphaBeta(2.0, 1.0, bias) for bias in BIAS_MODES),
    *(rules.Gamma(0.25, bias) for bias in BIAS_MODES),
    *(rules.WSquare(bias) for bias in BIAS_MODES),
    rules.Flat(),
    rules.ZBox(-6.0, 6.0),
    rules.Gradient(),
]
"""Every rule of a convolution or dense layer in every bias mode."""

WITHOUT_LEDGER = ("gradient", "deconvnet", "guided_backprop")
WITH_LEDGER = [name for name in RULES_ALONE if name not in WITHOUT_LEDGER]
"""The presets that account for relevance."""


# --- Strategies --------------------------------------------------------------------------------

SEEDS = st.integers(0, 2**32 - 1)
KINDS: st.SearchStrategy[Kind] = st.sampled_from(["normal", "sparse", "grid", "nonnegative"])
AXES = st.sampled_from([2, 2, 1, 3])
"""How many of them lie in space."""
BATCHES = st.sampled_from([1, 1, 2, 3, 0])


@st.composite
def linear_rules(draw: st.DrawFn, channels: int) -> rules.Rule:
    """Any rule of a linear layer; boxes hold every number that :func:`numbers` draws."""
    bias = draw(st.sampled_from(BIAS_MODES))
    bounds = st.tuples(*[st.floats(7, 9, width=32)] * channels) | st.just(8.0)
    kinds = ["epsilon", "alpha_beta", "gamma", "w_square", "flat", "z_box", "gradient"]
    which = draw(st.sampled_from(kinds))
    if which == "epsilon":
        return rules.Epsilon(draw(st.sampled_from([1e-9, 1e-6, 0.01, 0.5])), bias)
    if which == "alpha_beta":
        beta = draw(st.sampled_from([0.0, 0.5, 1.0]))
        return rules.AlphaBeta(1 + beta, beta, bias)
    if which == "gamma":
        return rules.Gamma(draw(st.sampled_from([0.0, 0.1, 0.25, 4.0])), bias)
    if which == "w_square":
        return rules.WSquare(bias)
    if which == "flat":
        return rules.Flat()
    if which == "gradient":
        return rules.Gradient()
    low, high = draw(bounds), draw(bounds)
    return rules.ZBox(tuple(-v for v in low) if isinstance(low, tuple) else -low, high)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[g.Conv, g.Shape]:
    """A convolution of any geometry and the shape of a signal, image or volume that it fits."""
    axes = draw(AXES)
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 7]))
    depthwise = groups > 1 and draw(st.booleans())
    per_group = 1 if depthwise else draw(st.integers(1, 5))
    outputs = groups * draw(st.integers(1, 2 if depthwise else 5))
    kernel, stride, dilation = (draw(st.tuples(*[st.integers(1, n)] * axes)) for n in (3, 3, 2))
    padding = draw(st.tuples(*[st.tuples(*[st.integers(0, 2)] * 2)] * axes))
    sizes = []
    for axis in range(axes):
        span = dilation[axis] * (kernel[axis] - 1) + 1
        least = max(1, span - sum(padding[axis]))
        sizes.append(draw(st.integers(least, least + (4 if axes < 3 else 1))))
    rng = np.random.default_rng(draw(SEEDS))
    kind = draw(KINDS)
    bias = draw(st.sampled_from(["none", "normal", "grid", "large"]))
    shift = {
        "none": None,
        "normal": numbers(rng, (outputs,)),
        "grid": numbers(rng, (outputs,), "grid"),
        "large": 10 * numbers(rng, (outputs,)),
    }[bias]
    sign = np.float32(draw(st.sampled_from([1.0, -1.0])))
    weight = sign * numbers(rng, (outputs, per_group, *kernel), kind)
    operator = g.Conv(weight, shift, stride, padding, dilation, groups)
    return operator, (groups * per_group, *sizes)


@st.composite
def transposed_convolutions(draw: st.DrawFn) -> tuple[g.ConvTranspose, g.Shape]:
    """A transposed convolution whose adjoint is drawn by :func:`convolutions`."""
    conv, shape = draw(convolutions())
    back = conv.infer_shape(shape)
    rest = tuple(
        (n + sum(conv.padding[a]) - conv.dilation[a] * (k - 1) - 1) % conv.stride[a]
        for a, (n, k) in enumerate(zip(shape[1:], conv.weight.shape[2:]))
    )
    rng = np.random.default_rng(draw(SEEDS))
    bias = numbers(rng, (shape[0],)) if draw(st.booleans()) else None
    operator = g.ConvTranspose(
        conv.weight, bias, conv.stride, conv.padding, rest, conv.dilation, conv.groups
    )
    return operator, back


@st.composite
def dense_layers(draw: st.DrawFn) -> tuple[g.Dense, g.Shape]:
    """A dense layer and an input shape of one to three axes."""
    inputs, outputs = draw(st.integers(1, 40)), draw(st.integers(1, 20))
    leading = draw(st.sampled_from([(), (), (3,), (2, 3)]))
    rng = np.random.default_rng(draw(SEEDS))
    weight = numbers(rng, (outputs, inputs), draw(KINDS))
    bias = numbers(rng, (outputs,), draw(KINDS)) if draw(st.booleans()) else None
    return g.Dense(weight, bias), (*leading, inputs)


@st.composite
def pools(draw: st.DrawFn, kind: Literal["max", "average"]) -> tuple[g.Operator, g.Shape]:
    """A pooling whose every window holds a real input, and the shape of what it reads."""
    axes = draw(AXES)
    kernel, stride = (draw(st.tuples(*[st.integers(1, 4)] * axes)) for _ in range(2))
    dilation = draw(st.tuples(*[st.integers(1, 2)] * axes)) if kind == "max" else (1,) * axes
    ceil_mode = draw(st.booleans())
    padding, sizes = [], []
    for axis in range(axes):
        span = dilation[axis] * (kernel[axis] - 1) + 1
        # No tap-free window: padding stays below the first real tap, as torch demands.
        most = kernel[axis] // 2 if dilation[axis] == 1 else 0
        pads = (draw(st.integers(0, most)), draw(st.integers(0, most)))
        padding.append(pads)
        # Rounded up, a window that is too large by less than a stride still is one.
        least = max(1, span - sum(pads) - (stride[axis] - 1 if ceil_mode else 0))
        sizes.append(draw(st.integers(least, least + (6 if axes < 3 else 2))))
    shape = (draw(st.sampled_from([1, 3, 8, 17])), *sizes)
    if kind == "max":
        return g.MaxPool(kernel, stride, tuple(padding), dilation, ceil_mode), shape
    count, divisor = draw(st.booleans()), draw(st.sampled_from([None, None, 3]))
    return g.AvgPool(kernel, stride, tuple(padding), ceil_mode, count, divisor), shape


def torch_pools(operator: g.MaxPool | g.AvgPool, shape: g.Shape) -> bool:
    """Whether torch has this pool: it pads evenly, and averages no volume smaller than a window."""
    uneven = any(before != after for before, after in operator.padding)
    short = any(size < window for size, window in zip(shape[1:], operator.kernel))
    return not uneven and not (
        isinstance(operator, g.AvgPool) and len(operator.kernel) == 3 and short
    )
