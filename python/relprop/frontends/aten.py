"""One small function per aten operator: what it is in the Graph.

:data:`TABLE` maps operator names to these functions. Each takes a :class:`Call`, adds nodes to
its Graph and returns the name of the last (a list where torch returns several results), or
raises :class:`Unsupported` with the reason.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from relprop.frontends import (
    aten_attention,
    aten_conditions,
    aten_masks,
    aten_moves,
    aten_norms,
    aten_recurrent,
    aten_windows,
)
from relprop.frontends.aten_call import Call, Converter, is_data, operator_name
from relprop.frontends.conversion import (
    BATCH_AXIS,
    Unsupported,
    clipping,
    maximum_over,
    power,
    registering,
)
from relprop.graph import (
    Activation,
    AdaptiveAvgPool,
    Add,
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Embedding,
    Function,
    LocalResponseNorm,
    Maximum,
    MaxPool,
    Mean,
    Mul,
    Padding,
    Pair,
    Permute,
    PReLU,
    Reshape,
    Sizes,
    Softmax,
    UpsampleBilinear2d,
    UpsampleNearest2d,
)

CHANNELS: dict[str, Converter] = {**aten_norms.CHANNELS, **aten_windows.CHANNELS}
"""Operators for which the axis behind the batch is that of channels: the batch must be first."""

_AXES = (1, 2, 3)
_MAX_POOLS = [f"max_pool{axes}d{more}" for axes in _AXES for more in ("", "_with_indices")]
_AVG_POOLS = [f"avg_pool{axes}d" for axes in _AXES]
_ADAPTIVE_MAX_POOLS = [f"adaptive_max_pool{axes}d" for axes in _AXES]
_ADAPTIVE_AVG_POOLS = [
    "adaptive_avg_pool1d",
    *(f"{private}adaptive_avg_pool{axes}d" for axes in (2, 3) for private in ("", "_")),
]

BESIDE = (
    *("conv1d", "conv2d", "convolution", "batch_norm", "_native_batch_norm_legit_no_training"),
    *_MAX_POOLS,
    *_AVG_POOLS,
    *_ADAPTIVE_MAX_POOLS,
    *_ADAPTIVE_AVG_POOLS,
)
"""Those whose batch may be merged with other axes, windows say: they lie beside those in space."""

_converts_channels = registering(CHANNELS)

UNALIGNED = ("einsum", "select_scatter", *aten_recurrent.TABLE)
"""Operators that know the batch of each argument themselves, wherever it is."""

TABLE: dict[str, Converter] = {
    **aten_moves.TABLE,
    **aten_attention.TABLE,
    **aten_conditions.TABLE,
    **aten_masks.TABLE,
    **aten_norms.TABLE,
    **aten_recurrent.TABLE,
    **aten_windows.TABLE,
}
_converts = registering(TABLE)


def _sizes(values: Any, axes: int) -> Sizes:
    """A number per spatial axis; torch takes one for all of them as well."""
    values = [values] if isinstance(values, int) else list(values)
    return tuple(int(v) for v in (values * axes if len(values) == 1 else values))


def _padding(values: Any, axes: int) -> Padding:
    return tuple((size, size) for size in _sizes(values, axes))


def _beside(call: Call, operator: Conv | BatchNorm) -> str:
    """Add an operator over channels and space; what the batch is merged with is space to it."""
    merged = call.place.merged
    if not merged:
        return call.emit(operator)
    if isinstance(operator, Conv):
        fresh = (1,) * len(merged)
        weight = operator.weight.reshape(
            *operator.weight.shape[:2], *fresh, *operator.weight.shape[2:]
        )
        operator = replace(
            operator,
            weight=weight,
            stride=(*fresh, *operator.stride),
            padding=(*((0, 0),) * len(merged), *operator.padding),
            dilation=(*fresh, *operator.dilation),
        )
    axes = tuple(range(len(call.input_shape)))
    at = len(merged)
    there = (at, *axes[:at], *axes[at + 1 :])
    back = (*axes[1 : at + 1], 0, *axes[at + 1 :])
    return call.chain([Permute(there), operator, Permute(back)], call.input)


def _by_channel(call: Call, operator: MaxPool | AvgPool | AdaptiveAvgPool) -> str:
    """Add an operator that knows one channel at a time; what the batch is merged with are more."""
    at = len(call.place.merged)
    if not at:
        return call.emit(operator)
    channels, places = call.input_shape[: at + 1], call.input_shape[at + 1 :]
    flat = (math.prod(channels), *places)
    made = (*channels, *operator.infer_shape(flat)[1:])
    return call.chain([Reshape(flat), operator, Reshape(made)], call.input)


def _spatial_axes(call: Call) -> int:
    """How many axes a pool's name says that it works along."""
    return int(operator_name(call.node.target).partition("pool")[2][0])


@_converts_channels("conv1d", "conv2d", "conv3d", "convolution")
def _conv(call: Call) -> Any:
    if call["transposed"]:
        call.require(not call.place.merged, BATCH_AXIS)
        return _conv_transpose(call)
    weight = call.parameter("weight")
    axes = weight.ndim - 2
    dilation = _sizes(call["dilation"], axes)
    if call["padding"] == "valid":
        padding: Padding = ()
    elif call["padding"] == "same":
        spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:])]
        padding = tuple((span // 2, span - span // 2) for span in spans)
    else:
        padding = _padding(call["padding"], axes)
    stride = _sizes(call["stride"], axes)
    bias = call.optional_parameter("bias")
    return _beside(call, Conv(weight, bias, stride, padding, dilation, call["groups"]))


@_converts_channels("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv_transpose(call: Call) -> str:
    weight = call.parameter("weight")
    axes = weight.ndim - 2
    return call.emit(
        ConvTranspose(
            weight,
            call.optional_parameter("bias"),
            _sizes(call["stride"], axes),
            _padding(call["padding"], axes),
            _sizes(call["output_padding"], axes),
            _sizes(call["dilation"], axes),
            call["groups"],
        )
    )


def _resizing(call: Call, size: Pair, align_corners: bool = False) -> tuple[float, float]:
    """Input pixels per output pixel along each axis, as torch counts them."""
    before = call.input_shape[1:]
    if align_corners:
        return tuple((n - 1) / (m - 1) if m > 1 else 0.0 for n, m in zip(before, size))  # type: ignore[return-value]
    scales = call["scale_factors"] or (None, None)
    return tuple(1 / s if s else n / m for n, m, s in zip(before, size, scales))  # type: ignore[return-value]


@_converts_channels("upsample_nearest2d")
def _upsample_nearest2d(call: Call) -> str:
    call.require_image()
    size = (call.shape[1], call.shape[2])
    return call.emit(UpsampleNearest2d(size, _resizing(call, size)))


@_converts_channels("upsample_bilinear2d")
def _upsample_bilinear2d(call: Call) -> str:
    call.require_image()
    size, corners = (call.shape[1], call.shape[2]), bool(call["align_corners"])
    return call.emit(UpsampleBilinear2d(size, _resizing(call, size, corners), corners))


@_converts("embedding")
def _embedding(call: Call) -> str:
    return call.emit(Embedding(call.parameter("weight", axes=2)), call.data("indices"))


@_converts("linear")
def _linear(call: Call) -> str:
    weight = call.parameter("weight", axes=2)
    return call.emit(Dense(weight, call.optional_parameter("bias")))


@_converts("addmm")
def _addmm(call: Call) -> str:
    weight = np.ascontiguousarray(call.parameter("mat2", axes=2).T) * np.float32(call["alpha"])
    bias = call.parameter("self", axes=1) * np.float32(call["beta"])
    bias = np.broadcast_to(bias, (len(weight),)).copy()
    return call.emit(Dense(weight, bias), call.data("mat1"))


@_converts_channels(*_MAX_POOLS)
def _max_pool(call: Call) -> Any:
    axes = _spatial_axes(call)
    kernel = _sizes(call["kernel_size"], axes)
    stride = _sizes(call["stride"], axes) if call["stride"] else kernel
    padding, dilation = _padding(call["padding"], axes), _sizes(call["dilation"], axes)
    pool = MaxPool(kernel, stride, padding, dilation, call["ceil_mode"])
    return call.first(_by_channel(call, pool))


@_converts_channels(*_ADAPTIVE_MAX_POOLS)
def _adaptive_max_pool(call: Call) -> Any:
    axes = _spatial_axes(call)
    sizes, output = call.input_shape[-axes:], _sizes(call["output_size"], axes)
    call.require(
        all(n % m == 0 for n, m in zip(sizes, output)),
        f"its output {output} does not divide the input {sizes} into equal windows",
    )
    window = tuple(n // m for n, m in zip(sizes, output))
    return call.first(_by_channel(call, MaxPool(window, window)))


@_converts_channels(*_AVG_POOLS)
def _avg_pool(call: Call) -> str:
    axes = _spatial_axes(call)
    kernel = _sizes(call["kernel_size"], axes)
    pool = AvgPool(
        kernel,
        _sizes(call["stride"], axes) if call["stride"] else kernel,
        _padding(call["padding"], axes),
        call["ceil_mode"],
        call["count_include_pad"],
        call["divisor_override"],
    )
    return _by_channel(call, pool)


@_converts_channels(*_ADAPTIVE_AVG_POOLS)
def _adaptive_avg_pool(call: Call) -> str:
    return _by_channel(call, AdaptiveAvgPool(call.shape[-_spatial_axes(call) :]))


@_converts("mean")
def _mean(call: Call) -> str:
    axes = [call.axis(dim) for dim in call["dim"] or ()]
    call.require(bool(axes), BATCH_AXIS)
    return call.emit(Mean(tuple(sorted(axes)), call["keepdim"]))


@_converts("sum")
def _sum(call: Call) -> str:
    return _sum_over(call, call.input)


def _sum_over(call: Call, name: str) -> str:
    """The sum of a node that is shaped like the call's input, over the axes that it names."""
    axes = [call.axis(dim) for dim in call["dim"] or ()]
    call.require(bool(axes), BATCH_AXIS)
    mean = call.emit(Mean(tuple(sorted(axes)), call["keepdim"]), name)
    count = math.prod(call.input_shape) / math.prod(call.shape)
    return call.scaled(mean, "count", count)


@_converts("linalg_vector_norm")
def _length(call: Call) -> str:
    call.require(call["ord"] == 2, f"only the norm of order 2 is supported, not {call['ord']}")
    return call.emit(power(0.5), _sum_over(call, call.emit(power(2))))


@_converts_channels(
    "batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm", "cudnn_batch_norm"
)
def _batch_norm(call: Call) -> Any:
    call.require(not call["training"], "it is in train mode")
    call.require(call["running_mean"] is not None, "it keeps no running statistics")
    mean, variance = call.parameter("running_mean", axes=1), call.parameter("running_var", axes=1)
    scale, shift = call.optional_parameter("weight"), call.optional_parameter("bias")
    factor = 1.0 / np.sqrt(variance.astype(np.float64) + call["eps"])
    if scale is not None:
        factor *= scale
    offset = -mean * factor
    if shift is not None:
        offset += shift
    norm = BatchNorm(factor.astype(np.float32), offset.astype(np.float32))
    return call.first(_beside(call, norm))


@_converts_channels("instance_norm")
def _instance_norm(call: Call) -> Any:
    if call["use_input_stats"]:
        return aten_norms.of_groups(call, call.input_shape[0])
    call.arguments["training"] = False
    return _batch_norm(call)


@_converts("_native_batch_norm_legit", "_native_batch_norm_legit_functional")
def _batch_statistics(call: Call) -> str:
    raise Unsupported("it uses the statistics of the batch; samples must be independent")


@_converts_channels("local_response_norm")
def _local_response_norm(call: Call) -> str:
    return call.emit(LocalResponseNorm(call["size"], call["alpha"], call["beta"], call["k"]))


@_converts("relu", "relu6", "silu", "sigmoid", "tanh", "exp")
def _activation(call: Call) -> str:
    return call.emit(Activation(cast(Function, operator_name(call.node.target))))


_HARD: dict[str, Function] = {"hardsigmoid": "hard_sigmoid", "hardswish": "hard_swish"}


@_converts(*_HARD)
def _hard(call: Call) -> str:
    return call.emit(Activation(_HARD[operator_name(call.node.target)]))


@_converts("softplus")
def _softplus(call: Call) -> str:
    # Above the threshold torch returns x itself, which differs by less than a float32 can hold.
    call.require(call["beta"] == 1 and call["threshold"] >= 17, "only beta 1 is supported")
    return call.emit(Activation("softplus"))


@_converts("leaky_relu")
def _leaky_relu(call: Call) -> str:
    return call.emit(Activation("leaky_relu", float(call["negative_slope"])))


@_converts("elu")
def _elu(call: Call) -> str:
    call.require(call["scale"] == 1 and call["input_scale"] == 1, "only a scale of 1 is supported")
    return call.emit(Activation("elu", float(call["alpha"])))


@_converts("gelu")
def _gelu(call: Call) -> str:
    return call.emit(Activation("gelu_tanh" if call["approximate"] == "tanh" else "gelu"))


@_converts_channels("prelu")
def _prelu(call: Call) -> str:
    slope = call.optional_parameter("weight")
    assert slope is not None
    return call.emit(PReLU(slope.reshape(-1)))


def _bound(call: Call, name: str, default: float) -> float:
    """One number that an argument is, if it is there."""
    value = call[name]
    if value is None:
        return default
    call.require(not is_data(value), f"{name} is computed from the input")
    one = not isinstance(value, torch.Tensor) or value.numel() == 1
    call.require(one, f"{name} has bounds of their own for different elements")
    return float(value)


@_converts("hardtanh", "clamp", "clamp_min", "clamp_max", "clip")
def _clamp(call: Call) -> str:
    low, high = ("min_val", "max_val") if "min_val" in call.arguments else ("min", "max")
    return call.emit(clipping(_bound(call, low, -math.inf), _bound(call, high, math.inf)))


@_converts("amax")
def _maximum_over(call: Call) -> Any:
    dims = call["dim"]
    axes = [call.axis(dim) for dim in ([dims] if isinstance(dims, int) else dims or ())]
    call.require(bool(axes), BATCH_AXIS)
    operators = maximum_over(call.input_shape, axes, call["keepdim"])
    return call.first(call.chain(operators, call.input))


@_converts("maximum", "minimum", "max", "min")
def _maximum(call: Call) -> Any:
    if "other" not in call.arguments:
        call.require(operator_name(call.node.target) == "max", "it takes a minimum over axes")
        return _maximum_over(call)
    name, other = ("self", "other") if is_data(call["self"]) else ("other", "self")
    least = operator_name(call.node.target).startswith("min")
    if not is_data(call[other]):
        bound = _bound(call, other, 0.0)
        bounds = (-math.inf, bound) if least else (bound, math.inf)
        return call.emit(clipping(*bounds), call.data(name))
    if not least:
        return call.emit(Maximum(), call.data("self"), call.data("other"))
    negated = (call.operand("self", -1.0), call.operand("other", -1.0))
    return call.scaled(call.emit(Maximum(), *negated), "result", -1.0)


@_converts("softmax", "_softmax")
def _softmax(call: Call) -> str:
    return call.emit(Softmax(call.axis(call["dim"])))


@_converts("log_softmax", "_log_softmax")
def _log_softmax(call: Call) -> str:
    last = all(reader.op == "output" for reader in call.node.users)
    call.require(last, "log softmax is supported only as the last operator")
    return call.emit(Softmax(call.axis(call["dim"])))


@_converts("add", "sub", "subtract")
def _add(call: Call) -> str:
    sign = 1.0 if operator_name(call.node.target) == "add" else -1.0
    aten_masks.hide(call, "self")
    if sign > 0:
        aten_masks.hide(call, "other")
    first = call.operand("self")
    return call.emit(Add(), first, call.operand("other", sign * float(call["alpha"])))


@_converts("rsub")
def _rsub(call: Call) -> str:
    return call.emit(Add(), call.operand("other"), call.operand("self", -float(call["alpha"])))


@_converts("mul", "multiply")
def _mul(call: Call) -> str:
    return call.emit(Mul(), call.operand("self"), call.operand("other"))


@_converts("pow", "square")
def _pow(call: Call) -> str:
    exponent = call["exponent"] if "exponent" in call.arguments else 2
    call.require(not is_data(exponent), "the exponent depends on the input")
    exponent = torch.as_tensor(exponent)
    one = exponent.numel() == 1 and exponent.ndim <= call.rank
    call.require(one, "it has exponents of their own for different elements")
    return call.emit(power(exponent.item()), call.data("self"))


_ROOTS = {"sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0}


@_converts(*_ROOTS)
def _root(call: Call) -> str:
    return call.emit(power(_ROOTS[operator_name(call.node.target)]))


@_converts("neg", "negative")
def _neg(call: Call) -> str:
    return call.operand("self", -1.0)


@_converts("div", "divide", "true_divide")
def _div(call: Call) -> str:
    call.require(call["rounding_mode"] is None, "division with rounding")
    if is_data(call["other"]):
        signal = call.operand("self")
        return call.emit(Mul(), signal, call.emit(power(-1), call["other"]))
    call.arguments["other"] = 1.0 / torch.as_tensor(call["other"], dtype=torch.float64)
    return call.emit(Mul(), call.data("self"), call.operand("other"))


@_converts("addcmul")
def _addcmul(call: Call) -> str:
    scale = float(call["value"])
    if is_data(call["tensor1"]) or is_data(call["tensor2"]):
        first = call.operand("tensor1", scale)
        product = call.emit(Mul(), first, call.operand("tensor2"))
    else:
        call.arguments["product"] = call["tensor1"] * call["tensor2"]
        product = call.operand("product", scale)
    return call.emit(Add(), call.operand("self"), product)


TABLE.update(CHANNELS)
