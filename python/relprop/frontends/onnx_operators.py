"""One small function per ONNX operator that reads the model's input: what it is in the Graph.

:data:`TABLE` maps operator names to these functions. Each takes a :class:`Call`, adds nodes to
its Graph and returns the name of the last (a list where the operator has several results), or
raises :class:`Unsupported` or ValueError with the reason. Differences between opsets are mostly
whether a setting is an attribute or an input: what is given is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from relprop.frontends import einsum
from relprop.frontends.conversion import BATCH_AXIS, Unsupported, clipping, maximum_over, unique
from relprop.frontends.onnx_constants import as_integers, part_of_shape, resolve_shape, slices
from relprop.frontends.onnx_steps import LARGEST, Step, cast_target
from relprop.frontends.onnx_tensors import FLOATS, INTEGERS, Tensor, type_name
from relprop.graph import (
    Activation,
    AdaptiveAvgPool,
    Add,
    Array,
    AvgPool,
    BatchNorm,
    Concat,
    Constant,
    Conv,
    ConvTranspose,
    Dense,
    Embedding,
    Function,
    Graph,
    LocalResponseNorm,
    Maximum,
    MaxPool,
    Mul,
    Operator,
    Pad,
    Padding,
    Pair,
    Permute,
    PReLU,
    Reshape,
    Shape,
    Sizes,
    Slice,
    Softmax,
    UpsampleBilinear2d,
    UpsampleNearest2d,
)
from relprop.graph import Mean as MeanOverAxes

Known = tuple[Tensor, ...]
"""A value that does not depend on the input: one array, or one for each of the batch sizes that
the conversion tries, where the size enters."""

Value = str | Known
"""What an ONNX value became: a Graph node's name where it depends on the input."""


class Call:
    """One ONNX node that reads the input: its settings, and the Graph to add its nodes to.

    ``batches`` are the sizes of the batch axis that the conversion tries, ``values`` and
    ``makers`` hold by name what each ONNX value became and which node made it, ``readers`` how
    often it is read.
    """

    def __init__(
        self,
        step: Step,
        graph: Graph,
        batches: Sequence[int],
        values: Mapping[str, object],
        makers: Mapping[str, Step],
        readers: Mapping[str, int],
    ) -> None:
        self.step = step
        self.graph = graph
        self.batches = batches
        self.values = values
        self.makers = makers
        self.readers = readers

    def require(self, condition: bool, reason: str) -> None:
        """Give up with a reason unless a condition holds."""
        if not condition:
            raise Unsupported(reason)

    # --- Data ---

    def is_data(self, position: int) -> bool:
        """Whether an argument is there and depends on the input."""
        return isinstance(self._argument(position), str)

    def data(self, position: int) -> str:
        """The Graph node that an argument is."""
        value = self._argument(position)
        self.require(isinstance(value, str), f"argument {position} does not depend on the input")
        return cast(str, value)

    @property
    def input(self) -> str:
        """The Graph node that is the first argument."""
        return self.data(0)

    @property
    def shape(self) -> Shape:
        """The first argument's shape without the batch axis."""
        return self.graph[self.input].shape

    def axis(self, dim: int, rank: int | None = None) -> int:
        """An ONNX axis without the batch, for a value of ``rank`` axes with it."""
        rank = len(self.shape) + 1 if rank is None else rank
        if not -rank <= dim < rank:
            raise ValueError(f"axis {dim} does not fit a value of {rank} axes")
        self.require(dim % rank != 0, BATCH_AXIS)
        return dim % rank - 1

    def emit(self, operator: Operator, *inputs: str) -> str:
        """Add a node that reads ``inputs``, by default the first argument."""
        return self.graph.add(unique(self.graph, self.step.name), operator, inputs or (self.input,))

    # --- Constants ---

    def _argument(self, position: int) -> object:
        names = self.step.inputs
        return self.values[names[position]] if position < len(names) and names[position] else None

    def given(self, position: int) -> bool:
        """Whether an argument is there."""
        return self._argument(position) is not None

    def versions(self, position: int) -> Known:
        """An argument that must be known, for each batch size that is tried."""
        value = self._argument(position)
        self.require(not isinstance(value, str), f"argument {position} is computed from the input")
        if value is None:
            raise ValueError(f"argument {position} is missing")
        known = cast(Known, value)
        return known if len(known) == len(self.batches) else known * len(self.batches)

    def known(self, position: int) -> Tensor:
        """An argument that must be known and not depend on the batch size."""
        self.versions(position)
        arrays = cast(Known, self._argument(position))
        self.require(len(arrays) == 1, f"argument {position} depends on the size of the batch")
        return arrays[0]

    def integers(self, position: int, attribute: str) -> tuple[int, ...] | None:
        """Integers that are an argument, an attribute, or not there."""
        if self.given(position):
            return tuple(as_integers(self.known(position)))
        return self.step.integers(attribute)

    def number(self, position: int, attribute: str, default: float) -> float:
        """A number that is an argument, an attribute, or not there."""
        if not self.given(position):
            return self.step.number(attribute, default)
        value = self.known(position)
        if value.size != 1:
            raise ValueError(f"{attribute} must be one number, not of shape {value.shape}")
        return float(value.reshape(()))

    def array(self, position: int, what: str, axes: int) -> Array:
        """An argument as a parameter with so many axes."""
        values = self.to_array(self.known(position), what)
        if values.ndim != axes:
            raise ValueError(f"{what} must have {axes} axes, not {values.ndim}")
        return values

    def to_array(self, values: Tensor, what: str) -> Array:
        """A float32 array of the Graph's own."""
        if values.dtype.kind != "f":
            raise ValueError(f"{what} is of type {values.dtype}")
        self.step.storage.spend(4 * values.size)
        with np.errstate(over="ignore"):
            array = np.array(values, np.float32, order="C")
        if not np.isfinite(array).all():
            raise ValueError(f"{what} holds NaN or infinite values")
        return array

    def operand(self, position: int, rank: int, change: Callable[[Tensor], Tensor]) -> str:
        """An argument as a node, what it is already or a new Constant that ``change`` makes.

        ``rank`` counts the axes of the result with the batch.
        """
        if self.is_data(position):
            name = self.data(position)
            self.require(len(self.graph[name].shape) + 1 == rank, BATCH_AXIS)
            return name
        values, what = self.known(position), self.step.inputs[position]
        self.require(values.ndim <= rank, BATCH_AXIS)
        if values.ndim == rank:
            self.require(values.shape[0] == 1, "a constant has a value of its own for each sample")
            values = values[0]
        with np.errstate(all="ignore"):
            constant = Constant(self.to_array(change(values), what))
        return self.graph.add(unique(self.graph, what), constant)

    def operands(self, *changes: Callable[[Tensor], Tensor]) -> list[str]:
        """All arguments as nodes that broadcast against each other; constants are changed."""
        count = len(self.step.inputs)
        data = [self.data(i) for i in range(count) if self.is_data(i)]
        rank = max(len(self.graph[name].shape) for name in data) + 1
        same = [lambda values: values] * (count - len(changes))
        return [self.operand(i, rank, change) for i, change in enumerate([*changes, *same])]


# --- The table ---------------------------------------------------------------------------------

_LARGEST_AXIS = 1 << 20

_Converter = Callable[[Call], Value | list[str]]
TABLE: dict[str, _Converter] = {}


def _converts(*names: str) -> Callable[[_Converter], _Converter]:
    def register(function: _Converter) -> _Converter:
        TABLE.update(dict.fromkeys(names, function))
        return function

    return register


def _padding(call: Call, kernel: Sizes, stride: Sizes, dilation: Sizes) -> Padding:
    """Before and after, per spatial axis, from pads or from auto_pad."""
    mode, axes = call.step.text("auto_pad", "NOTSET"), len(kernel)
    if mode == "NOTSET":
        pads = call.step.window("pads", (0,) * (2 * axes), least=0)
        return tuple(zip(pads[:axes], pads[axes:]))
    if mode == "VALID":
        return ((0, 0),) * axes
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"auto_pad is {mode!r}")
    return tuple(
        _halves(max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0), mode)
        for size, k, s, d in zip(call.shape[1:], kernel, stride, dilation)
    )


def _halves(total: int, mode: str) -> Pair:
    """Padding before and after; the larger half is behind under SAME_UPPER."""
    small, large = total // 2, total - total // 2
    return (small, large) if mode == "SAME_UPPER" else (large, small)


@_converts("Conv")
def _conv(call: Call) -> str:
    weight, bias, groups, stride, dilation = _kernel(call)
    padding = _padding(call, weight.shape[2:], stride, dilation)
    return call.emit(Conv(weight, bias, stride, padding, dilation, groups))


@_converts("ConvTranspose")
def _conv_transpose(call: Call) -> str:
    weight, bias, groups, stride, dilation = _kernel(call)
    extra = call.step.window("output_padding", (0,) * len(stride), least=0)
    mode = call.step.text("auto_pad", "NOTSET")
    size = call.step.integers("output_shape")
    if size is not None or mode.startswith("SAME"):
        size = size or tuple(n * s for n, s in zip(call.shape[1:], stride))
        if len(size) != len(stride):
            raise ValueError(f"output_shape must be {len(stride)} integers, not {size}")
        pads: list[Pair] = []
        for n, wanted, k, s, d, more in zip(
            call.shape[1:], size, weight.shape[2:], stride, dilation, extra
        ):
            total = (n - 1) * s + more + d * (k - 1) + 1 - wanted
            call.require(total >= 0, f"it makes {size}, larger than its windows reach")
            pads.append(_halves(total, mode))
        padding = tuple(pads)
    else:
        padding = _padding(call, weight.shape[2:], stride, dilation)
    return call.emit(ConvTranspose(weight, bias, stride, padding, extra, dilation, groups))


def _kernel(call: Call) -> tuple[Array, Array | None, int, Sizes, Sizes]:
    """Weight, bias, groups, stride and dilation of a convolution."""
    axes = call.known(1).ndim - 2
    call.require(1 <= axes <= 3, f"convolution over {axes} axes")
    weight = call.array(1, "weight", axes + 2)
    kernel = weight.shape[2:]
    if call.step.window("kernel_shape", kernel) != kernel:
        raise ValueError(f"kernel_shape is not that of weight {weight.shape}")
    groups = call.step.integer("group", 1)
    if not 1 <= groups <= LARGEST:
        raise ValueError(f"group must be a positive integer, not {groups}")
    bias = call.array(2, "bias", 1) if call.given(2) else None
    stride, dilation = (call.step.window(name, (1,) * axes) for name in ("strides", "dilations"))
    return weight, bias, groups, stride, dilation


@_converts("Gemm")
def _gemm(call: Call) -> str:
    call.require(not call.step.integer("transA", 0), BATCH_AXIS)
    call.require(len(call.shape) == 1, f"one sample must be a vector, not {call.shape}")
    weight = call.array(1, "weight", 2) * np.float32(call.step.number("alpha", 1.0))
    if not call.step.integer("transB", 0):
        weight = np.ascontiguousarray(weight.T)
    bias = None
    if call.given(2):
        bias = call.to_array(call.known(2), "bias") * np.float32(call.step.number("beta", 1.0))
        call.require(bias.size in (1, len(weight)), f"a bias of shape {bias.shape}")
        bias = np.broadcast_to(bias.reshape(-1), (len(weight),)).copy()
    return call.emit(Dense(weight, bias))


@_converts("MatMul")
def _matmul(call: Call) -> str:
    ranks = [
        len(call.graph[call.data(i)].shape) + 1 if call.is_data(i) else call.known(i).ndim
        for i in (0, 1)
    ]
    return _linear_map(call, einsum.matmul_equation(*ranks))


@_converts("Einsum")
def _einsum(call: Call) -> str:
    return _linear_map(call, call.step.text("equation", ""))


def _linear_map(call: Call, equation: str) -> str:
    """What an einsum of one node and of constants is."""
    positions = range(len(call.step.inputs))
    data = [call.data(i) for i in positions if call.is_data(i)]
    call.require(len(data) == 1, "several of its operands are computed from the input")
    parts = [
        call.graph[data[0]].shape if call.is_data(i) else call.to_array(call.known(i), "weight")
        for i in positions
    ]
    (name,) = data
    for operator in einsum.lower(equation, parts):
        name = call.emit(operator, name)
    return name


@_converts("MaxPool")
def _max_pool(call: Call) -> str:
    call.require(sum(map(bool, call.step.outputs)) == 1, "the places of the maxima are used")
    kernel, stride, padding, ceil_mode = _windows(call)
    dilation = call.step.window("dilations", (1,) * len(kernel))
    padding = _padding(call, kernel, stride, dilation)
    return call.emit(MaxPool(kernel, stride, padding, dilation, ceil_mode))


@_converts("AveragePool")
def _average_pool(call: Call) -> str:
    kernel, stride, padding, ceil_mode = _windows(call)
    call.require(set(call.step.window("dilations", (1,) * len(kernel))) == {1}, "it is dilated")
    counted = bool(call.step.integer("count_include_pad", 0))
    return call.emit(AvgPool(kernel, stride, padding, ceil_mode, counted))


def _windows(call: Call) -> tuple[Sizes, Sizes, Padding, bool]:
    """Kernel, stride, padding and ceil mode of a pool."""
    if call.step.integers("kernel_shape") is None:
        raise ValueError("it has no kernel_shape")
    one = (1,) * (len(call.shape) - 1)
    kernel, stride = (call.step.window(name, one) for name in ("kernel_shape", "strides"))
    padding = _padding(call, kernel, stride, one)
    if any(max(pads) >= k for pads, k in zip(padding, kernel)):
        raise ValueError(f"windows of {kernel} fit into the padding {padding}")
    return kernel, stride, padding, bool(call.step.integer("ceil_mode", 0))


@_converts("GlobalAveragePool")
def _global_average_pool(call: Call) -> str:
    return call.emit(AdaptiveAvgPool((1,) * (len(call.shape) - 1)))


@_converts("GlobalMaxPool")
def _global_max_pool(call: Call) -> str:
    window = call.shape[1:]
    return call.emit(MaxPool(window, window))


@_converts("Resize", "Upsample")
def _resize(call: Call) -> str:
    call.require(len(call.shape) == 3, f"one sample must be an image, not {call.shape}")
    call.require(not call.step.integer("antialias", 0), "it is antialiased")
    policy = call.step.text("keep_aspect_ratio_policy", "stretch")
    call.require(policy == "stretch", f"keep_aspect_ratio_policy {policy!r}")
    size, ratio = _new_size(call)
    before, mode = call.shape[1:], call.step.text("mode", "nearest")
    old = call.step.type == "Upsample" or call.step.opset < 11
    how = "asymmetric" if old else call.step.text("coordinate_transformation_mode", "half_pixel")
    if how == "pytorch_half_pixel" and 1 not in size:
        how = "half_pixel"
    call.require(how in ("half_pixel", "align_corners", "asymmetric"), f"coordinates of {how!r}")
    if how == "align_corners":
        ratio = (
            (before[0] - 1) / max(size[0] - 1, 1),
            (before[1] - 1) / max(size[1] - 1, 1),
        )
    if mode == "nearest":
        rounding = "floor" if old else call.step.text("nearest_mode", "round_prefer_floor")
        same = all(
            _takes_as_graph(n, m, r, how == "half_pixel", rounding)
            for n, m, r in zip(before, size, ratio)
        )
        call.require(same, f"nearest pixels by {how!r} and {rounding!r}")
        return call.emit(UpsampleNearest2d(size, ratio))
    call.require(mode in ("linear", "bilinear"), f"mode {mode!r}")
    return call.emit(UpsampleBilinear2d(size, ratio, align_corners=how != "half_pixel"))


def _new_size(call: Call) -> tuple[Pair, tuple[float, float]]:
    """The size of a resized image, and input pixels per output pixel along each axis."""
    rank = len(call.shape) + 1
    axes = tuple(call.step.integers("axes") or range(rank))
    if not all(-rank <= axis < rank for axis in axes):
        raise ValueError(f"axes {axes} do not fit a value of {rank} axes")
    by_size = call.given(3)
    tried = []
    for version, batch in enumerate(call.batches):
        full = (batch, *call.shape)
        given = call.versions(3 if by_size else 1 if call.step.opset < 11 else 2)[version]
        if given.shape != (len(axes),):
            raise ValueError(f"{given.size} scales or sizes do not fit {len(axes)} axes")
        sizes, ratios = list(full), [1.0] * rank
        for axis, value in zip(axes, given.tolist()):
            if not 0 < value < LARGEST:
                raise ValueError(f"scales and sizes must be positive numbers, not {given.tolist()}")
            # A scale is a float32, and so is its product with the size.
            sizes[axis] = value if by_size else int(np.float32(full[axis]) * np.float32(value))
            ratios[axis] = full[axis] / value if by_size else 1.0 / value
        call.require(ratios[0] == 1, BATCH_AXIS)
        call.require(ratios[1] == 1, "it resizes channels")
        tried.append(((sizes[2], sizes[3]), (ratios[2], ratios[3])))
    call.require(all(t == tried[0] for t in tried), "its size depends on that of the batch")
    return tried[0]


def _takes_as_graph(before: int, after: int, ratio: float, half_pixel: bool, rounding: str) -> bool:
    """Whether along an axis the nearest pixels are those of UpsampleNearest2d."""
    if after > _LARGEST_AXIS:
        raise ValueError(f"an axis of {after} is too long")
    places = np.arange(after)
    at = (places + 0.5) * ratio - 0.5 if half_pixel else places * ratio
    rounded = {
        "floor": np.floor(at),
        "ceil": np.ceil(at),
        "round_prefer_floor": np.ceil(at - 0.5),
        "round_prefer_ceil": np.floor(at + 0.5),
    }.get(rounding)
    if rounded is None:
        raise ValueError(f"nearest_mode is {rounding!r}")
    taken = np.minimum(np.floor(places * ratio), before - 1)
    return np.array_equal(np.clip(rounded, 0, before - 1), taken)


@_converts("ReduceMean", "ReduceMax")
def _reduce(call: Call) -> str:
    axes = call.integers(1, "axes")
    if not axes:
        call.require(bool(call.step.integer("noop_with_empty_axes", 0)), BATCH_AXIS)
        return call.input
    over = tuple(sorted(call.axis(dim) for dim in axes))
    keep = bool(call.step.integer("keepdims", 1))
    if call.step.type == "ReduceMax":
        name = call.input
        for operator in maximum_over(call.shape, over, keep):
            name = call.emit(operator, name)
        return name
    if keep and over == (1, 2) and len(call.shape) == 3:
        return call.emit(AdaptiveAvgPool((1, 1)))  # what torch's global pool is exported as
    return call.emit(MeanOverAxes(over, keep))


@_converts("BatchNormalization")
def _batch_norm(call: Call) -> str:
    training = call.step.integer("training_mode", 0) or sum(map(bool, call.step.outputs)) > 1
    call.require(not training, "it is in training mode")
    scale, shift, mean, variance = (
        call.array(i, what, 1).astype(np.float64)
        for i, what in enumerate(("scale", "shift", "mean", "variance"), 1)
    )
    spread = variance + call.step.number("epsilon", 1e-5)
    if not scale.shape == shift.shape == mean.shape == spread.shape or not (spread > 0).all():
        raise ValueError("its parameters differ in size, or a variance is not positive")
    factor = scale / np.sqrt(spread)
    return call.emit(
        BatchNorm(call.to_array(factor, "scale"), call.to_array(shift - mean * factor, "shift"))
    )


@_converts("LRN")
def _lrn(call: Call) -> str:
    size = call.step.integer("size", 0)
    call.require(size % 2 == 1, f"a window of {size} channels has no centre")
    if not 1 <= size <= LARGEST:
        raise ValueError(f"size must be a positive integer, not {size}")
    alpha, beta = call.step.number("alpha", 1e-4), call.step.number("beta", 0.75)
    return call.emit(LocalResponseNorm(size, alpha, beta, call.step.number("bias", 1.0)))


_FUNCTIONS: dict[str, Function] = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "HardSwish": "hard_swish",
}


@_converts(*_FUNCTIONS)
def _activation(call: Call) -> str:
    return call.emit(Activation(_FUNCTIONS[call.step.type]))


@_converts("LeakyRelu")
def _leaky_relu(call: Call) -> str:
    return call.emit(Activation("leaky_relu", call.step.number("alpha", 0.01)))


@_converts("Elu")
def _elu(call: Call) -> str:
    return call.emit(Activation("elu", call.step.number("alpha", 1.0)))


@_converts("HardSigmoid")
def _hard_sigmoid(call: Call) -> str:
    call.require(has_common_slope(call.step), "only alpha 1/6 and beta 1/2 are supported")
    return call.emit(Activation("hard_sigmoid"))


def has_common_slope(step: Step) -> bool:
    """Whether a HardSigmoid is the one that torch and MobileNetV3 know."""
    alpha, beta = step.number("alpha", 0.2), step.number("beta", 0.5)
    return abs(alpha - 1 / 6) < 1e-4 and beta == 0.5


@_converts("Gelu")
def _gelu(call: Call) -> str:
    tanh = call.step.text("approximate", "none") == "tanh"
    return call.emit(Activation("gelu_tanh" if tanh else "gelu"))


@_converts("Clip")
def _clip(call: Call) -> str:
    low = call.number(1, "min", -math.inf)
    return call.emit(clipping(low, call.number(2, "max", math.inf)))


@_converts("PRelu")
def _prelu(call: Call) -> str:
    slope = call.to_array(call.known(1), "slope")
    full = (1,) * (len(call.shape) + 1 - slope.ndim) + slope.shape
    per_channel = len(full) == len(call.shape) + 1 and slope.size == math.prod(full[1:2])
    call.require(slope.size == 1 or per_channel, "its slopes differ along more than the channels")
    return call.emit(PReLU(slope.reshape(-1)))


@_converts("Max", "Min")
def _maximum(call: Call) -> str:
    least = call.step.type == "Min"
    numbers = []
    branches = []
    for position in range(len(call.step.inputs)):
        if call.is_data(position):
            branches.append(call.data(position))
            continue
        bound = call.known(position)
        call.require(bound.size == 1, "it has bounds of their own for different elements")
        numbers.append(float(bound.reshape(())))
    name = branches[0]
    if len(branches) > 1:
        ranks = {len(call.graph[branch].shape) for branch in branches}
        call.require(len(ranks) == 1, BATCH_AXIS)
        negated = [_scaled(call, branch, -1.0) if least else branch for branch in branches]
        name = call.emit(Maximum(), *negated)
        name = _scaled(call, name, -1.0) if least else name
    if numbers:
        bounds = (-math.inf, min(numbers)) if least else (max(numbers), math.inf)
        name = call.emit(clipping(*bounds), name)
    return name


@_converts("Softmax", "LogSoftmax")
def _softmax(call: Call) -> str:
    last = not any(call.readers.get(name) for name in call.step.outputs if name)
    call.require(last, "softmax is supported only as the last operator")
    axis = call.axis(call.step.integer("axis", 1 if call.step.opset < 13 else -1))
    if call.step.opset < 13:  # over all axes from this one on
        call.require(math.prod(call.shape[axis + 1 :]) == 1, "it goes over several axes")
    return call.emit(Softmax(axis))


# --- Sums and products -------------------------------------------------------------------------


@_converts("Add", "Sum")
def _add(call: Call) -> str:
    if len(call.step.inputs) == 1:
        return call.input
    return _with_bias(call) or call.emit(Add(), *call.operands())


def _with_bias(call: Call) -> str | None:
    """The MatMul that this Add gives a bias, if it does nothing else: together they are Dense."""
    if len(call.step.inputs) != 2 or call.is_data(0) == call.is_data(1):
        return None
    matmul, bias = (0, 1) if call.is_data(0) else (1, 0)
    made = call.step.inputs[matmul]
    maker = call.makers.get(made)
    if maker is None or maker.type != "MatMul" or call.readers[made] != 1:
        return None
    node, values = call.graph[call.data(matmul)], call.known(bias)
    fits = values.shape[-1:] == node.shape[-1:] and values.size == node.shape[-1]
    if not fits or values.ndim > len(node.shape) + 1 or not isinstance(node.operator, Dense):
        return None
    dense = replace(node.operator, bias=call.to_array(values.reshape(-1), call.step.inputs[bias]))
    call.graph.nodes[node.name] = replace(node, operator=dense)
    return node.name


@_converts("Sub")
def _sub(call: Call) -> str:
    if not call.is_data(1):
        return call.emit(Add(), *call.operands(np.asarray, np.negative))
    first, second = call.operands()
    return call.emit(Add(), first, _scaled(call, second, -1.0))


@_converts("Neg")
def _neg(call: Call) -> str:
    return _scaled(call, call.input, -1.0)


def _scaled(call: Call, name: str, factor: float) -> str:
    constant = Constant(np.array(factor, np.float32))
    scale = call.graph.add(unique(call.graph, f"{call.step.name}.scale"), constant)
    return call.emit(Mul(), name, scale)


@_converts("Mul")
def _mul(call: Call) -> str:
    return call.emit(Mul(), *call.operands())


@_converts("Div")
def _div(call: Call) -> str:
    call.require(not call.is_data(1), "division by a value that depends on the input")
    return call.emit(Mul(), *call.operands(np.asarray, lambda v: 1.0 / v.astype(np.float64)))


# --- Places ------------------------------------------------------------------------------------


@_converts("Concat")
def _concat(call: Call) -> str:
    count = len(call.step.inputs)
    ranks = [len(call.graph[call.data(i)].shape) + 1 for i in range(count) if call.is_data(i)]
    parts = []
    for i in range(count):
        if not call.is_data(i):
            fits = call.known(i).ndim == ranks[0] and call.known(i).shape[0] == 1
            call.require(fits, "a constant part has no batch axis of its own")
        parts.append(call.operand(i, ranks[0], np.asarray))
    return call.emit(Concat(call.axis(call.step.integer("axis", 0), ranks[0])), *parts)


@_converts("Slice")
def _slice(call: Call) -> str:
    bounds = [call.versions(i) if call.given(i) else None for i in range(1, len(call.step.inputs))]
    tried = []
    for version, batch in enumerate(call.batches):
        at = [None if known is None else known[version] for known in bounds]
        parts = slices(call.step, at, len(call.shape) + 1)
        whole = parts.pop(0, slice(None)).indices(batch) == (0, batch, 1)
        call.require(whole, BATCH_AXIS)
        tried.append({axis: part.indices(call.shape[axis - 1]) for axis, part in parts.items()})
    call.require(all(t == tried[0] for t in tried), "its bounds depend on the size of the batch")
    name = call.input
    for axis, (start, stop, by) in tried[0].items():
        call.require(by > 0, "a slice with a negative step")
        name = call.emit(Slice(axis - 1, start, stop, by), name)
    return name


@_converts("Gather")
def _gather(call: Call) -> str:
    if not call.is_data(0):
        call.require(call.step.integer("axis", 0) == 0, "it looks up another axis than the first")
        return call.emit(Embedding(call.array(0, "weight", 2)), call.data(1))
    call.require(not call.is_data(1), "its indices are computed from what it reads")
    axis = call.axis(call.step.integer("axis", 0))
    indices = call.known(1)
    size = call.shape[axis]
    if indices.dtype.kind not in "iu" or not ((-size <= indices) & (indices < size)).all():
        raise ValueError(f"its indices do not fit an axis of {size}")
    listed = [int(i) % size for i in indices.reshape(-1)]
    run = listed == list(range(listed[0], listed[0] + len(listed))) if listed else False
    call.require(run, "only neighbours in order can be gathered")
    name = call.emit(Slice(axis, listed[0], listed[-1] + 1))
    return call.emit(Reshape((*call.shape[:axis], *indices.shape, *call.shape[axis + 1 :])), name)


@_converts("Split")
def _split(call: Call) -> list[str]:
    axis = call.axis(call.step.integer("axis", 0))
    size, count = call.shape[axis], len(call.step.outputs)
    sizes = call.integers(1, "split")
    if sizes is None:
        each = -(-size // count)
        sizes = (*(each,) * (count - 1), size - each * (count - 1))
    if len(sizes) != count or sum(sizes) != size:
        raise ValueError(f"{count} parts of sizes {sizes} do not make up an axis of {size}")
    stops = np.cumsum(sizes).tolist()
    return [call.emit(Slice(axis, stop - n, stop)) for n, stop in zip(sizes, stops)]


@_converts("Pad")
def _pad(call: Call) -> str:
    mode = call.step.text("mode", "constant")
    call.require(mode == "constant", f"padding mode {mode!r}")
    flat = call.integers(1, "pads") or ()
    rank = len(call.shape) + 1
    axes = as_integers(call.known(3)) if call.given(3) else list(range(rank))
    if len(flat) != 2 * len(axes) or not all(-rank <= axis < rank for axis in axes):
        raise ValueError(f"pads {flat} do not fit {len(axes)} axes")
    pairs = [(0, 0)] * rank
    for position, axis in enumerate(axes):
        pairs[axis] = (flat[position], flat[position + len(axes)])
    call.require(pairs.pop(0) == (0, 0), BATCH_AXIS)
    name = call.input
    for axis, (before, after) in enumerate(pairs):
        if before < 0 or after < 0:  # a negative pad cuts
            stop = call.shape[axis] + min(after, 0)
            name = call.emit(Slice(axis, max(-before, 0), stop), name)
    value = call.number(2, "value", 0.0)
    call.require(math.isfinite(value), f"it pads with {value}")
    pads = tuple((max(before, 0), max(after, 0)) for before, after in pairs)
    return call.emit(Pad(pads, value), name)


def _reshaped(call: Call, shapes: Sequence[Sequence[int]]) -> str:
    """The input in another shape, given with the batch for each batch size that is tried."""
    rests = {tuple(shape[1:]) for shape in shapes}
    kept = all(list(shape[:1]) == [batch] for shape, batch in zip(shapes, call.batches))
    call.require(kept and len(rests) == 1, BATCH_AXIS)
    return call.emit(Reshape(rests.pop()))


@_converts("Reshape")
def _reshape(call: Call) -> str:
    allow_zero = bool(call.step.integer("allowzero", 0))
    targets = [as_integers(version) for version in call.versions(1)]
    return _reshaped(
        call,
        [
            resolve_shape(target, (batch, *call.shape), allow_zero)
            for target, batch in zip(targets, call.batches)
        ],
    )


@_converts("Flatten")
def _flatten(call: Call) -> str:
    rank, axis = len(call.shape) + 1, call.step.integer("axis", 1)
    if not -rank <= axis <= rank:
        raise ValueError(f"axis {axis} does not fit a value of {rank} axes")
    axis += rank if axis < 0 else 0
    full = [(batch, *call.shape) for batch in call.batches]
    return _reshaped(call, [(math.prod(s[:axis]), math.prod(s[axis:])) for s in full])


@_converts("Squeeze")
def _squeeze(call: Call) -> str:
    axes = call.integers(1, "axes")
    if axes is None:
        # With a batch of one ONNX would drop the batch axis as well.
        call.require(call.batches[0] != 1, "it does not say which axes")
        gone = {axis for axis, size in enumerate(call.shape) if size == 1}
    else:
        gone = {call.axis(dim) for dim in axes}
    if any(call.shape[axis] != 1 for axis in gone):
        raise ValueError(f"axes {axes} of shape {call.shape} are not all 1")
    return call.emit(Reshape(tuple(n for a, n in enumerate(call.shape) if a not in gone)))


@_converts("Unsqueeze")
def _unsqueeze(call: Call) -> str:
    axes = call.integers(1, "axes") or ()
    rank = len(call.shape) + len(axes)
    new = {call.axis(dim, rank + 1) for dim in axes}
    if len(new) != len(axes):
        raise ValueError(f"axes {axes} name one axis twice")
    left = iter(call.shape)
    return call.emit(Reshape(tuple(1 if a in new else next(left) for a in range(rank))))


@_converts("Transpose")
def _transpose(call: Call) -> str:
    rank = len(call.shape) + 1
    axes = call.step.integers("perm") or tuple(reversed(range(rank)))
    if sorted(axes) != list(range(rank)):
        raise ValueError(f"perm {axes} is no permutation of {rank} axes")
    call.require(axes[0] == 0, BATCH_AXIS)
    return call.emit(Permute(tuple(axis - 1 for axis in axes[1:])))


# --- What changes nothing ----------------------------------------------------------------------


@_converts("Identity", "CastLike")
def _identity(call: Call) -> str:
    return call.input


@_converts("Cast")
def _cast(call: Call) -> str:
    # The core computes in float32, whatever float the model was to run in.
    kind = cast_target(call.step)
    same = INTEGERS if call.graph[call.input].ids else FLOATS
    call.require(kind in same, f"a cast to {type_name(kind)}")
    return call.input


@_converts("Dropout")
def _dropout(call: Call) -> str:
    training = call.given(2) and bool(call.known(2).any())
    call.require(not training, "it is in training mode")
    return call.input


@_converts("Expand")
def _expand(call: Call) -> str:
    for target, batch in zip(call.versions(1), call.batches):
        full = (batch, *call.shape)
        made = np.broadcast_shapes(full, tuple(as_integers(target)))
        call.require(made == full, "it repeats values")
    return call.input


# --- What is known of the input without its values ---------------------------------------------


@_converts("Shape")
def _shape(call: Call) -> Known:
    return tuple(part_of_shape(call.step, (batch, *call.shape)) for batch in call.batches)


@_converts("Size")
def _size(call: Call) -> Known:
    return tuple(np.array(batch * math.prod(call.shape)) for batch in call.batches)
