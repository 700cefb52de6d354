"""One small function per ONNX operator that reads the model's input: what it is in the Graph.

:data:`TABLE` maps operator names to these functions. Each takes a :class:`Call`, adds nodes to
its Graph and returns the name of the last (a list where the operator has several results), or
raises :class:`Unsupported` or ValueError with the reason. Differences between opsets are mostly
whether a setting is an attribute or an input: what is given is read.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from relprop.frontends import (
    onnx_attention,
    onnx_conditions,
    onnx_moves,
    onnx_norms,
    onnx_recurrent,
    onnx_resize,
)
from relprop.frontends.batch_axis import HOME
from relprop.frontends.conversion import (
    BATCH_AXIS,
    clipping,
    maximum_over,
    power,
    registering,
)
from relprop.frontends.onnx_call import Call, Converter
from relprop.frontends.onnx_steps import LARGEST, Step
from relprop.graph import (
    Activation,
    AdaptiveAvgPool,
    Add,
    Array,
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Function,
    LocalResponseNorm,
    Maximum,
    MaxPool,
    Mul,
    Padding,
    Pair,
    PReLU,
    Sizes,
)
from relprop.graph import Mean as MeanOverAxes

CHANNELS: dict[str, Converter] = {**onnx_norms.CHANNELS, **onnx_resize.TABLE}
"""Operators for which the axis behind the batch is that of channels: the batch must be first."""

_converts_channels = registering(CHANNELS)

UNALIGNED = ("Einsum", "Gather", "Attention", *onnx_recurrent.TABLE)
"""Operators whose arguments are not broadcast to each other."""

TABLE: dict[str, Converter] = {
    **onnx_moves.TABLE,
    **onnx_attention.TABLE,
    **onnx_conditions.TABLE,
    **onnx_norms.TABLE,
    **onnx_recurrent.TABLE,
}
_converts = registering(TABLE)


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


@_converts_channels("Conv")
def _conv(call: Call) -> str:
    weight, bias, groups, stride, dilation = _kernel(call)
    padding = _padding(call, weight.shape[2:], stride, dilation)
    return call.emit(Conv(weight, bias, stride, padding, dilation, groups))


@_converts_channels("ConvTranspose")
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
    behind = call.rank_of(call.sources[0]) - call.place.axis - 1
    call.require(behind == 1, f"one sample must be a vector, not {call.shape}")
    weight = call.array(1, "weight", 2) * np.float32(call.step.number("alpha", 1.0))
    if not call.step.integer("transB", 0):
        weight = np.ascontiguousarray(weight.T)
    bias = None
    if call.given(2):
        bias = call.to_array(call.known(2), "bias") * np.float32(call.step.number("beta", 1.0))
        full = (1,) * (2 - bias.ndim) + bias.shape
        call.require(full in ((1, 1), (1, len(weight))), f"a bias of shape {bias.shape}")
        bias = np.broadcast_to(bias.reshape(-1), (len(weight),)).copy()
    return call.emit(Dense(weight, bias))


@_converts_channels("MaxPool")
def _max_pool(call: Call) -> str:
    call.require(sum(map(bool, call.step.outputs)) == 1, "the places of the maxima are used")
    kernel, stride, padding, ceil_mode = _windows(call)
    dilation = call.step.window("dilations", (1,) * len(kernel))
    padding = _padding(call, kernel, stride, dilation)
    return call.emit(MaxPool(kernel, stride, padding, dilation, ceil_mode))


@_converts_channels("AveragePool")
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


@_converts_channels("GlobalAveragePool")
def _global_average_pool(call: Call) -> str:
    return call.emit(AdaptiveAvgPool((1,) * (len(call.shape) - 1)))


@_converts_channels("GlobalMaxPool")
def _global_max_pool(call: Call) -> str:
    window = call.shape[1:]
    return call.emit(MaxPool(window, window))


@_converts("ReduceMean", "ReduceMax", "ReduceSum", "ReduceSumSquare", "ReduceL2")
def _reduce(call: Call) -> str:
    axes = call.integers(1, "axes")
    if not axes:
        squared = call.step.type in ("ReduceSumSquare", "ReduceL2")
        nothing = bool(call.step.integer("noop_with_empty_axes", 0)) and not squared
        call.require(nothing, BATCH_AXIS)
        return call.input
    over = tuple(sorted(call.axis(dim) for dim in axes))
    keep = bool(call.step.integer("keepdims", 1))
    if not keep:
        rank, at = call.rank_of(call.sources[0]), call.place.axis
        call.made = replace(call.place, axis=at - sum(dim % rank < at for dim in axes))
    if call.step.type == "ReduceMax":
        return call.chain(maximum_over(call.shape, over, keep), call.input)
    if call.step.type != "ReduceMean":
        return _sum_over(call, over, keep)
    if call.place == HOME and keep and over == (1, 2) and len(call.shape) == 3:
        return call.emit(AdaptiveAvgPool((1, 1)))  # what torch's global pool is exported as
    return call.emit(MeanOverAxes(over, keep))


def _sum_over(call: Call, axes: tuple[int, ...], keepdims: bool) -> str:
    """A sum over axes, of squares where they are asked for, or the length: their root."""
    name = call.input if call.step.type == "ReduceSum" else call.emit(power(2))
    count = math.prod(call.shape[axis] for axis in axes)
    name = _scaled(call, call.emit(MeanOverAxes(axes, keepdims), name), count)
    return call.emit(power(0.5), name) if call.step.type == "ReduceL2" else name


@_converts_channels("BatchNormalization")
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


@_converts_channels("LRN")
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
    "Exp": "exp",
    "HardSwish": "hard_swish",
}


@_converts(*_FUNCTIONS)
def _activation(call: Call) -> str:
    return call.emit(Activation(_FUNCTIONS[call.step.type]))


@_converts("Sqrt")
def _sqrt(call: Call) -> str:
    return call.emit(power(0.5))


@_converts("Reciprocal")
def _reciprocal(call: Call) -> str:
    return call.emit(power(-1))


@_converts("Pow")
def _pow(call: Call) -> str:
    return call.emit(power(call.number(1, "the exponent", 1)), call.data(0))


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


@_converts_channels("PRelu")
def _prelu(call: Call) -> str:
    slope = call.to_array(call.known(1), "slope")
    full = (1,) * (len(call.shape) + 1 - slope.ndim) + slope.shape
    per_channel = len(full) == len(call.shape) + 1 and slope.size == math.prod(full[1:2])
    call.require(per_channel, "its slopes differ along more than the channels")
    return call.emit(PReLU(slope.reshape(-1)))


@_converts("Max", "Min")
def _maximum(call: Call) -> str:
    least = call.step.type == "Min"
    numbers = []
    branches = []
    axes = 0
    for position in range(len(call.step.inputs)):
        if call.is_data(position):
            branches.append(call.data(position))
            continue
        bound = call.known(position)
        call.require(bound.size == 1, "it has bounds of their own for different elements")
        numbers.append(float(bound.reshape(())))
        axes = max(axes, bound.ndim)
    call.require(axes <= max(map(call.rank_of, call.sources)), BATCH_AXIS)
    name = branches[0]
    if len(branches) > 1:
        negated = [_scaled(call, branch, -1.0) if least else branch for branch in branches]
        name = call.emit(Maximum(), *negated)
        name = _scaled(call, name, -1.0) if least else name
    if numbers:
        bounds = (-math.inf, min(numbers)) if least else (max(numbers), math.inf)
        name = call.emit(clipping(*bounds), name)
    return name


# --- Sums and products -------------------------------------------------------------------------


@_converts("Add", "Sum")
def _add(call: Call) -> str:
    if len(call.step.inputs) == 1:
        return call.input
    masks = [lambda values: onnx_attention.finite(call, values)] * len(call.step.inputs)
    return _with_bias(call) or call.emit(Add(), *call.operands(*masks))


def _with_bias(call: Call) -> str | None:
    """The MatMul that this Add gives a bias, if it does nothing else: together they are Dense."""
    if len(call.step.inputs) != 2 or call.is_data(0) == call.is_data(1):
        return None
    matmul, bias = (0, 1) if call.is_data(0) else (1, 0)
    made = call.step.inputs[matmul]
    maker = call.makers.get(made)
    if maker is None or maker.type != "MatMul":
        return None
    if len(call.readers[made]) != 1 or made in call.outputs:
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
    return call.emit(Mul(), name, call.constant("scale", factor))


@_converts("Mul")
def _mul(call: Call) -> str:
    return call.emit(Mul(), *call.operands())


@_converts("Div")
def _div(call: Call) -> str:
    if call.is_data(1):
        signal, divisor = call.operands()
        return call.emit(Mul(), signal, call.emit(power(-1), divisor))
    return call.emit(Mul(), *call.operands(np.asarray, lambda v: 1.0 / v.astype(np.float64)))


TABLE.update(CHANNELS)
