"""aten operators over channels and space: convolutions, pools, resizing, norms of channels.

The axis behind the batch is that of channels to all of them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from relprop.frontends import aten_norms, aten_windows
from relprop.frontends.aten_call import Call, Converter, operator_name
from relprop.frontends.conversion import BATCH_AXIS, registering
from relprop.graph import (
    AdaptiveAvgPool,
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    LocalResponseNorm,
    MaxPool,
    Padding,
    Pair,
    Permute,
    PReLU,
    Reshape,
    Sizes,
    UpsampleBilinear2d,
    UpsampleNearest2d,
)

TABLE: dict[str, Converter] = {**aten_norms.CHANNELS, **aten_windows.CHANNELS}
"""What needs the batch as its first axis."""

_converts = registering(TABLE)

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


@_converts("conv1d", "conv2d", "conv3d", "convolution")
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


@_converts("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
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


@_converts("upsample_nearest2d")
def _upsample_nearest2d(call: Call) -> str:
    call.require_image()
    size = (call.shape[1], call.shape[2])
    return call.emit(UpsampleNearest2d(size, _resizing(call, size)))


@_converts("upsample_bilinear2d")
def _upsample_bilinear2d(call: Call) -> str:
    call.require_image()
    size, corners = (call.shape[1], call.shape[2]), bool(call["align_corners"])
    return call.emit(UpsampleBilinear2d(size, _resizing(call, size, corners), corners))


@_converts(*_MAX_POOLS)
def _max_pool(call: Call) -> Any:
    axes = _spatial_axes(call)
    kernel = _sizes(call["kernel_size"], axes)
    stride = _sizes(call["stride"], axes) if call["stride"] else kernel
    padding, dilation = _padding(call["padding"], axes), _sizes(call["dilation"], axes)
    pool = MaxPool(kernel, stride, padding, dilation, call["ceil_mode"])
    return call.first(_by_channel(call, pool))


@_converts(*_ADAPTIVE_MAX_POOLS)
def _adaptive_max_pool(call: Call) -> Any:
    axes = _spatial_axes(call)
    sizes, output = call.input_shape[-axes:], _sizes(call["output_size"], axes)
    call.require(
        all(n % m == 0 for n, m in zip(sizes, output)),
        f"its output {output} does not divide the input {sizes} into equal windows",
    )
    window = tuple(n // m for n, m in zip(sizes, output))
    return call.first(_by_channel(call, MaxPool(window, window)))


@_converts(*_AVG_POOLS)
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


@_converts(*_ADAPTIVE_AVG_POOLS)
def _adaptive_avg_pool(call: Call) -> str:
    return _by_channel(call, AdaptiveAvgPool(call.shape[-_spatial_axes(call) :]))


@_converts(
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


@_converts("instance_norm")
def _instance_norm(call: Call) -> Any:
    if call["use_input_stats"]:
        return aten_norms.of_groups(call, call.input_shape[0])
    call.arguments["training"] = False
    return _batch_norm(call)


@_converts("local_response_norm")
def _local_response_norm(call: Call) -> str:
    return call.emit(LocalResponseNorm(call["size"], call["alpha"], call["beta"], call["k"]))


@_converts("prelu")
def _prelu(call: Call) -> str:
    slope = call.optional_parameter("weight")
    assert slope is not None
    return call.emit(PReLU(slope.reshape(-1)))
