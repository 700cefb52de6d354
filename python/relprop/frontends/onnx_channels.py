"""ONNX operators over channels and space: convolutions, pools, resizing, norms of channels.

The axis behind the batch is that of channels to all of them.
"""

from __future__ import annotations

import math

import numpy as np

from relprop.frontends import onnx_norms, onnx_resize
from relprop.frontends.conversion import registering
from relprop.frontends.onnx_call import Call, Converter
from relprop.frontends.onnx_steps import LARGEST
from relprop.graph import (
    AdaptiveAvgPool,
    Array,
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    LocalResponseNorm,
    MaxPool,
    Padding,
    Pair,
    PReLU,
    Sizes,
)

TABLE: dict[str, Converter] = {**onnx_norms.CHANNELS, **onnx_resize.TABLE}
"""What needs the batch as its first axis."""

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


@_converts("PRelu")
def _prelu(call: Call) -> str:
    slope = call.to_array(call.known(1), "slope")
    full = (1,) * (len(call.shape) + 1 - slope.ndim) + slope.shape
    per_channel = len(full) == len(call.shape) + 1 and slope.size == math.prod(full[1:2])
    call.require(per_channel, "its slopes differ along more than the channels")
    return call.emit(PReLU(slope.reshape(-1)))
