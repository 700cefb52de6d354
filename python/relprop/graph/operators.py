"""The operators of a Graph, a small closed set, and the shapes that they make.

Every axis that an operator names counts without the batch. Operators over space take one setting
per spatial axis, in the order of the shape; their number is that of the axes. Parameters are
float32 numpy arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from relprop.graph.shapes import (
    MOST_VALUES,
    Array,
    Padding,
    Pair,
    Shape,
    Sizes,
    require,
    spatial_sizes,
    window_count,
)
from relprop.shown import ShownByShapes

MOST_IDS = 2**24
"""So many whole numbers the core's float32 tells apart."""

Content = Literal["numbers", "ids"]

Function = Literal[
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "silu",
    "gelu",
    "gelu_tanh",
    "sigmoid",
    "tanh",
    "hard_sigmoid",
    "hard_swish",
    "softplus",
    "exp",
    "power",
]


def _require_bias(bias: Array | None, out: int) -> None:
    if bias is not None:
        require(bias.shape == (out,), f"bias must have shape ({out},), not {bias.shape}.")


def _complete(operator: Operator, axes: int, **defaults: int | Pair) -> None:
    """Give settings that were left empty their default on every axis."""
    for name, default in defaults.items():
        if getattr(operator, name) == ():
            object.__setattr__(operator, name, (default,) * axes)


def _axes(
    operator: Conv | ConvTranspose | MaxPool | AvgPool, shape: Shape, kernel: Sizes
) -> Iterator[tuple[int, int, int, Pair, int]]:
    """Size of the input, kernel, stride, padding and dilation along every spatial axis."""
    sizes = spatial_sizes(type(operator).__name__, shape, len(kernel))
    for name in ("stride", "padding", "output_padding", "dilation"):
        found = len(getattr(operator, name, kernel))
        require(found == len(kernel), f"{name} must have {len(kernel)} entries, not {found}.")
    dilation = getattr(operator, "dilation", (1,) * len(kernel))
    return zip(sizes, kernel, operator.stride, operator.padding, dilation)


@dataclass(frozen=True, eq=False, repr=False)
class Input(ShownByShapes):
    """Where data enters; ``shape`` without the batch axis.

    ``ids`` are whole numbers that name the rows of an :class:`Embedding`, words say, or the entries
    of a :class:`Mask`. They can be moved, but nothing else can be computed with them.
    """

    shape: Shape
    content: Content = "numbers"

    def infer_shape(self, *inputs: Shape) -> Shape:
        return self.shape


@dataclass(frozen=True, eq=False, repr=False)
class Constant(ShownByShapes):
    """A value that depends on no input; its relevance is booked as ``constants``."""

    value: Array

    def infer_shape(self, *inputs: Shape) -> Shape:
        return tuple(self.value.shape)


@dataclass(frozen=True, eq=False, repr=False)
class Embedding(ShownByShapes):
    """The row of ``weight``, (vocabulary, features), that each id names, along a new last axis."""

    weight: Array

    def infer_shape(self, *inputs: Shape) -> Shape:
        require(self.weight.ndim == 2, f"weight must have 2 axes, not {self.weight.ndim}.")
        rows, features = self.weight.shape
        require(0 < rows <= MOST_IDS, f"weight must have 1 to {MOST_IDS} rows, not {rows}.")
        return (*inputs[0], features)


@dataclass(frozen=True, eq=False, repr=False)
class Mask(ShownByShapes):
    """The number in ``values``, (vocabulary,), that each id stands for: 1 for seen, 0 for hidden.

    What is computed from masks and constants alone takes no relevance.
    """

    values: Array

    def infer_shape(self, *inputs: Shape) -> Shape:
        require(self.values.ndim == 1, f"values must have 1 axis, not {self.values.ndim}.")
        count = len(self.values)
        require(0 < count <= MOST_IDS, f"values must have 1 to {MOST_IDS} entries, not {count}.")
        return inputs[0]


@dataclass(frozen=True, eq=False, repr=False)
class Conv(ShownByShapes):
    """Convolution; ``weight`` is (out, in / groups, *kernel), zero padding."""

    weight: Array
    bias: Array | None = None
    stride: Sizes = ()
    padding: Padding = ()
    dilation: Sizes = ()
    groups: int = 1

    def __post_init__(self) -> None:
        _complete(self, max(self.weight.ndim - 2, 0), stride=1, padding=(0, 0), dilation=1)

    def infer_shape(self, *inputs: Shape) -> Shape:
        positions = [
            window_count(*a, ceil_mode=False) for a in _axes(self, inputs[0], self.weight.shape[2:])
        ]
        out, per_group = self.weight.shape[:2]
        require(
            inputs[0][0] == per_group * self.groups and out % self.groups == 0,
            f"weight {self.weight.shape} with groups={self.groups} does not fit "
            f"{inputs[0][0]} channels.",
        )
        _require_bias(self.bias, out)
        return (out, *positions)


@dataclass(frozen=True, eq=False, repr=False)
class ConvTranspose(ShownByShapes):
    """The adjoint of a convolution; ``weight`` is (in, out / groups, *kernel).

    ``padding`` is cut off the result; ``output_padding`` makes its axes longer at their end.
    """

    weight: Array
    bias: Array | None = None
    stride: Sizes = ()
    padding: Padding = ()
    output_padding: Sizes = ()
    dilation: Sizes = ()
    groups: int = 1

    def __post_init__(self) -> None:
        axes = max(self.weight.ndim - 2, 0)
        _complete(self, axes, stride=1, padding=(0, 0), output_padding=0, dilation=1)

    def infer_shape(self, *inputs: Shape) -> Shape:
        kernel = self.weight.shape[2:]
        axes = _axes(self, inputs[0], kernel)
        into, per_group = self.weight.shape[:2]
        out = per_group * self.groups
        require(
            inputs[0][0] == into and self.groups >= 1 and into % self.groups == 0,
            f"weight {self.weight.shape} with groups={self.groups} does not fit "
            f"{inputs[0][0]} channels.",
        )
        _require_bias(self.bias, out)
        require(
            all(0 <= extra < stride for extra, stride in zip(self.output_padding, self.stride)),
            f"output_padding must be smaller than stride {self.stride}, not {self.output_padding}.",
        )
        require(
            min(*kernel, *self.dilation) >= 1 and min(map(min, self.padding)) >= 0,
            f"kernel={kernel} and dilation={self.dilation} must be at least 1 and "
            f"padding={self.padding} at least 0.",
        )
        made = ((n - 1) * s - sum(p) + d * (k - 1) + 1 for n, k, s, p, d in axes)
        return (out, *(n + extra for n, extra in zip(made, self.output_padding)))


@dataclass(frozen=True, eq=False, repr=False)
class Dense(ShownByShapes):
    """Fully connected layer on the last axis; ``weight`` is (out, in).

    Compiled, a layer may read its weight where it is, so that the array becomes read-only.
    """

    weight: Array
    bias: Array | None = None

    def infer_shape(self, *inputs: Shape) -> Shape:
        require(self.weight.ndim == 2, f"weight must have 2 axes, not {self.weight.ndim}.")
        out, features = self.weight.shape
        require(
            len(inputs[0]) >= 1 and inputs[0][-1] == features,
            f"weight {self.weight.shape} does not fit an input of shape {inputs[0]}.",
        )
        _require_bias(self.bias, out)
        return (*inputs[0][:-1], out)


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool(ShownByShapes):
    """Maximum over windows; padding never wins."""

    kernel: Sizes
    stride: Sizes
    padding: Padding = ()
    dilation: Sizes = ()
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        _complete(self, len(self.kernel), stride=1, padding=(0, 0), dilation=1)

    def infer_shape(self, *inputs: Shape) -> Shape:
        axes = _axes(self, inputs[0], self.kernel)
        return (inputs[0][0], *(window_count(*axis, self.ceil_mode) for axis in axes))


@dataclass(frozen=True, eq=False, repr=False)
class AvgPool(ShownByShapes):
    """Mean over windows; ``divisor`` replaces the number of elements where given.

    Padding counts towards the divisor where ``count_include_pad`` (the extra positions that
    ``ceil_mode`` adds beyond the padding never do, as in torch).
    """

    kernel: Sizes
    stride: Sizes
    padding: Padding = ()
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor: int | None = None

    def __post_init__(self) -> None:
        _complete(self, len(self.kernel), stride=1, padding=(0, 0))

    def infer_shape(self, *inputs: Shape) -> Shape:
        require(
            self.divisor is None or self.divisor >= 1,
            f"divisor must be at least 1, not {self.divisor}.",
        )
        axes = _axes(self, inputs[0], self.kernel)
        return (inputs[0][0], *(window_count(*axis, self.ceil_mode) for axis in axes))


@dataclass(frozen=True, eq=False, repr=False)
class AdaptiveAvgPool(ShownByShapes):
    """Mean over ``output`` windows per axis that tile the input as in torch; ones are global."""

    output: Sizes

    def infer_shape(self, *inputs: Shape) -> Shape:
        spatial_sizes("AdaptiveAvgPool", inputs[0], len(self.output))
        return (inputs[0][0], *self.output)


@dataclass(frozen=True, eq=False, repr=False)
class UpsampleNearest2d(ShownByShapes):
    """An image of another size: pixel o takes that of input ``floor(o * ratio)``, per axis.

    ``ratio`` is input size over output size, or one over the scale that the model states.
    """

    size: Pair
    ratio: tuple[float, float]

    def infer_shape(self, *inputs: Shape) -> Shape:
        return _resized("UpsampleNearest2d", inputs[0], self.size, self.ratio)


@dataclass(frozen=True, eq=False, repr=False)
class UpsampleBilinear2d(ShownByShapes):
    """An image of another size, interpolated between the four nearest pixels.

    Output pixel o lies at ``(o + 1/2) * ratio - 1/2``, cut off at 0, or at ``o * ratio`` where
    ``align_corners``; ``ratio`` per axis as in torch.
    """

    size: Pair
    ratio: tuple[float, float]
    align_corners: bool = False

    def infer_shape(self, *inputs: Shape) -> Shape:
        return _resized("UpsampleBilinear2d", inputs[0], self.size, self.ratio)


def _resized(operator: str, shape: Shape, size: Pair, ratio: tuple[float, float]) -> Shape:
    spatial_sizes(operator, shape)
    require(
        all(0 <= r <= MOST_VALUES for r in ratio),
        f"ratio must be between 0 and {MOST_VALUES}, not {ratio}.",
    )
    return (shape[0], *size)


@dataclass(frozen=True, eq=False, repr=False)
class Mean(ShownByShapes):
    """Mean over axes."""

    axes: tuple[int, ...]
    keepdims: bool = False

    def infer_shape(self, *inputs: Shape) -> Shape:
        require(
            len(set(self.axes)) == len(self.axes)
            and all(0 <= a < len(inputs[0]) for a in self.axes),
            f"axes {self.axes} do not fit an input of shape {inputs[0]}.",
        )
        if self.keepdims:
            return tuple(1 if a in self.axes else n for a, n in enumerate(inputs[0]))
        return tuple(n for a, n in enumerate(inputs[0]) if a not in self.axes)


@dataclass(frozen=True, eq=False, repr=False)
class BatchNorm(ShownByShapes):
    """Per channel (first axis) ``scale * x + shift``, the statistics already worked in."""

    scale: Array
    shift: Array

    def infer_shape(self, *inputs: Shape) -> Shape:
        require(
            len(inputs[0]) >= 1 and self.scale.shape == self.shift.shape == (inputs[0][0],),
            f"scale {self.scale.shape} and shift {self.shift.shape} do not fit an input of "
            f"shape {inputs[0]}.",
        )
        return inputs[0]


@dataclass(frozen=True, eq=False, repr=False)
class LayerNorm(ShownByShapes):
    """``weight * (x - mean) / sqrt(variance + epsilon) + bias`` over the last axes, the weight's.

    Where not ``centred``, the mean is left out and the variance is the mean square: RMS norm.
    """

    weight: Array
    bias: Array | None = None
    epsilon: float = 1e-5
    centred: bool = True

    def infer_shape(self, *inputs: Shape) -> Shape:
        shape = self.weight.shape
        require(
            len(shape) >= 1 and inputs[0][-len(shape) :] == shape,
            f"weight {shape} does not fit the last axes of an input of shape {inputs[0]}.",
        )
        if self.bias is not None:
            require(
                self.bias.shape == shape, f"bias must have shape {shape}, not {self.bias.shape}."
            )
        _require_epsilon(self.epsilon)
        return inputs[0]


@dataclass(frozen=True, eq=False, repr=False)
class GroupNorm(ShownByShapes):
    """``weight * (x - mean) / sqrt(variance + epsilon) + bias``, statistics of groups of channels.

    Over all that a sample has of a group; weight and bias per channel, the first axis. As many
    groups as channels are instance norm.
    """

    groups: int
    weight: Array
    bias: Array
    epsilon: float = 1e-5

    def infer_shape(self, *inputs: Shape) -> Shape:
        channels = inputs[0][0] if inputs[0] else 0
        require(
            channels > 0 and self.weight.shape == self.bias.shape == (channels,),
            f"weight {self.weight.shape} and bias {self.bias.shape} do not fit an input of "
            f"shape {inputs[0]}.",
        )
        require(
            self.groups >= 1 and channels % self.groups == 0,
            f"groups={self.groups} must divide {channels} channels.",
        )
        _require_epsilon(self.epsilon)
        return inputs[0]


def _require_epsilon(epsilon: float) -> None:
    require(
        math.isfinite(epsilon) and epsilon >= 0, f"epsilon must be finite and >= 0, not {epsilon}."
    )


@dataclass(frozen=True, eq=False, repr=False)
class LocalResponseNorm(ShownByShapes):
    """``x * (k + alpha * window sum of squares / values of a whole window) ** -beta``.

    The window is ``size`` neighbouring channels of a pixel, or where ``within_channel`` the
    ``size`` x ``size`` pixels around it; zeros lie beyond the edges.
    """

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0
    within_channel: bool = False

    def infer_shape(self, *inputs: Shape) -> Shape:
        spatial_sizes(
            "LocalResponseNorm", inputs[0], 2 if self.within_channel else len(inputs[0]) - 1
        )
        require(self.size >= 1, f"size must be at least 1, not {self.size}.")
        return inputs[0]


@dataclass(frozen=True, eq=False, repr=False)
class Activation(ShownByShapes):
    """An elementwise function.

    ``parameter`` is leaky_relu's slope, elu's alpha or power's exponent.
    """

    function: Function
    parameter: float = 0.0

    def infer_shape(self, *inputs: Shape) -> Shape:
        return inputs[0]


@dataclass(frozen=True, eq=False, repr=False)
class Clip(ShownByShapes):
    """Values cut off below ``low`` and above ``high``; either may be infinite."""

    low: float
    high: float

    def infer_shape(self, *inputs: Shape) -> Shape:
        require(self.low <= self.high, f"low={self.low} must not exceed high={self.high}.")
        return inputs[0]


def clip_bounds(operator: Operator) -> tuple[float, float] | None:
    """Where an operator cuts values off, None for one that does anything else."""
    if isinstance(operator, Clip):
        return operator.low, operator.high
    if isinstance(operator, Activation):
        return {"relu": (0.0, math.inf), "relu6": (0.0, 6.0)}.get(operator.function)
    return None


@dataclass(frozen=True, eq=False, repr=False)
class PReLU(ShownByShapes):
    """``x`` where positive, else ``slope * x``; one slope, or one per channel (the first axis)."""

    slope: Array

    def infer_shape(self, *inputs: Shape) -> Shape:
        require(
            self.slope.shape in ((1,), inputs[0][:1]),
            f"slope {self.slope.shape} does not fit an input of shape {inputs[0]}.",
        )
        return inputs[0]


@dataclass(frozen=True, eq=False, repr=False)
class Softmax(ShownByShapes):
    """Softmax along an axis; at the end of a model it is cut."""

    axis: int

    def infer_shape(self, *inputs: Shape) -> Shape:
        require(
            0 <= self.axis < len(inputs[0]),
            f"axis {self.axis} does not fit an input of shape {inputs[0]}.",
        )
        return inputs[0]


@dataclass(frozen=True, eq=False, repr=False)
class Add(ShownByShapes):
    """Sum of any number of branches, broadcast as numpy does."""

    def infer_shape(self, *inputs: Shape) -> Shape:
        return tuple(np.broadcast_shapes(*inputs))


@dataclass(frozen=True, eq=False, repr=False)
class Mul(ShownByShapes):
    """Elementwise product of two branches, broadcast as numpy does."""

    def infer_shape(self, *inputs: Shape) -> Shape:
        return tuple(np.broadcast_shapes(*inputs))


@dataclass(frozen=True, eq=False, repr=False)
class MatMul(ShownByShapes):
    """Matrix product of two branches, for each place along the axes before the last two.

    (..., rows, summed) by (..., summed, columns), or by (..., columns, summed) where
    ``transposed``: queries by keys.
    """

    transposed: bool = False

    def infer_shape(self, *inputs: Shape) -> Shape:
        left, right = inputs
        turned = (*right[:-2], *right[:-3:-1]) if self.transposed else right
        require(
            len(left) == len(right) >= 2 and left[:-2] == right[:-2] and left[-1] == turned[-2],
            f"shapes {left} and {right}{', transposed,' if self.transposed else ''} do not fit "
            "a matrix product.",
        )
        return (*left[:-1], turned[-1])


@dataclass(frozen=True, eq=False, repr=False)
class Maximum(ShownByShapes):
    """Elementwise maximum of any number of branches, broadcast as numpy does."""

    def infer_shape(self, *inputs: Shape) -> Shape:
        return tuple(np.broadcast_shapes(*inputs))


@dataclass(frozen=True, eq=False, repr=False)
class Concat(ShownByShapes):
    """Branches one after the other along an axis."""

    axis: int = 0

    def infer_shape(self, *inputs: Shape) -> Shape:
        first = inputs[0]
        rest = [(len(s), s[: self.axis], s[self.axis + 1 :]) for s in inputs]
        require(
            0 <= self.axis < len(first) and all(r == rest[0] for r in rest),
            f"shapes {inputs} cannot be joined along axis {self.axis}.",
        )
        return (*first[: self.axis], sum(s[self.axis] for s in inputs), *first[self.axis + 1 :])


@dataclass(frozen=True, eq=False, repr=False)
class Slice(ShownByShapes):
    """``x[..., start:stop:step, ...]`` along an axis, with 0 <= start <= stop and step >= 1."""

    axis: int
    start: int
    stop: int
    step: int = 1

    def infer_shape(self, *inputs: Shape) -> Shape:
        shape = inputs[0]
        require(
            0 <= self.axis < len(shape)
            and 0 <= self.start < self.stop <= shape[self.axis]
            and self.step >= 1,
            f"slice {self.start}:{self.stop}:{self.step} of axis {self.axis} does not fit {shape}.",
        )
        size = -(-(self.stop - self.start) // self.step)
        return (*shape[: self.axis], size, *shape[self.axis + 1 :])


@dataclass(frozen=True, eq=False, repr=False)
class Pad(ShownByShapes):
    """Constant padding, (before, after) per axis."""

    pads: tuple[Pair, ...]
    value: float = 0.0

    def infer_shape(self, *inputs: Shape) -> Shape:
        require(
            len(self.pads) == len(inputs[0]) and all(p >= 0 for pair in self.pads for p in pair),
            f"pads {self.pads} do not fit an input of shape {inputs[0]}; negative pads are slices.",
        )
        return tuple(n + a + b for n, (a, b) in zip(inputs[0], self.pads))


@dataclass(frozen=True, eq=False, repr=False)
class Reshape(ShownByShapes):
    """Same values in row-major order, another shape; flatten is one."""

    shape: Shape

    def infer_shape(self, *inputs: Shape) -> Shape:
        require(
            math.prod(self.shape) == math.prod(inputs[0]),
            f"an input of shape {inputs[0]} cannot be reshaped to {self.shape}.",
        )
        return self.shape


@dataclass(frozen=True, eq=False, repr=False)
class Permute(ShownByShapes):
    """Axes in another order."""

    axes: tuple[int, ...]

    def infer_shape(self, *inputs: Shape) -> Shape:
        require(
            sorted(self.axes) == list(range(len(inputs[0]))),
            f"axes {self.axes} are no permutation of the axes of {inputs[0]}.",
        )
        return tuple(inputs[0][a] for a in self.axes)


@dataclass(frozen=True, eq=False, repr=False)
class Identity(ShownByShapes):
    """The value itself: dropout at inference, aliases."""

    def infer_shape(self, *inputs: Shape) -> Shape:
        return inputs[0]


Operator = (
    Input
    | Constant
    | Embedding
    | Mask
    | Conv
    | ConvTranspose
    | Dense
    | MaxPool
    | AvgPool
    | AdaptiveAvgPool
    | UpsampleNearest2d
    | UpsampleBilinear2d
    | Mean
    | BatchNorm
    | LayerNorm
    | GroupNorm
    | LocalResponseNorm
    | Activation
    | Clip
    | PReLU
    | Softmax
    | Add
    | Mul
    | MatMul
    | Maximum
    | Concat
    | Slice
    | Pad
    | Reshape
    | Permute
    | Identity
)
"""Any operator. This is the one list of them."""

CARRY_IDS = (Concat, Slice, Reshape, Permute, Identity)
"""What moves ids as it moves numbers."""

ARITY: dict[type, tuple[int, float]] = {
    Input: (0, 0),
    Constant: (0, 0),
    Add: (2, math.inf),
    Mul: (2, 2),
    MatMul: (2, 2),
    Maximum: (2, math.inf),
    Concat: (1, math.inf),
}
"""How many inputs an operator takes, at least and at most; one where it is not listed."""
