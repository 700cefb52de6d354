"""Caffe's layers that know channels from other axes; see ``caffe_layers.py``."""

from __future__ import annotations

from typing import Any

import numpy as np

from relprop.frontends.caffe_layer import LARGEST, Converter, Layer, finite
from relprop.frontends.conversion import Unsupported, registering
from relprop.graph import (
    AdaptiveAvgPool,
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    LocalResponseNorm,
    MaxPool,
    Mul,
    Pair,
    PReLU,
    Reshape,
    Shape,
)

TABLE: dict[str, Converter] = {}
_converts = registering(TABLE)

# --- Windows -----------------------------------------------------------------------------------


def _sizes(settings: Any, field: str, default: int, least: int) -> Pair:
    """Height and width of a window, from one field for both or one for each."""
    given = {descriptor.name: value for descriptor, value in settings.ListFields()}
    both = given.get(field, ())
    values = (both,) if isinstance(both, int) else tuple(both)
    each = [f"{field.removesuffix('_size')}_{side}" for side in "hw"]
    if any(name in given for name in each):
        if values:
            raise ValueError(f"it has {field} and {each[0]} or {each[1]} at once.")
        values = tuple(given.get(name, default) for name in each)
    if len(values) > 2:
        raise Unsupported(f"{field} has {len(values)} values: only images are supported")
    height, width = (values * 2)[:2] if values else (default, default)
    if not least <= min(height, width) <= max(height, width) <= LARGEST:
        raise ValueError(f"{field} must be between {least} and {LARGEST}, not {height} x {width}.")
    return height, width


def _require_image(layer: Layer) -> None:
    layer.require_one_input()
    if len(layer.shape) != 3:
        raise Unsupported(f"its bottom of shape {layer.shape} is no image")


@_converts("Convolution", "Deconvolution")
def _convolution(layer: Layer) -> str:
    """A convolution, or its adjoint; only the order of the weight's first two axes differs."""
    _require_image(layer)
    settings = layer.message.convolution_param
    if layer.axis(settings.axis) != 0:
        raise Unsupported(f"axis {settings.axis} holds the channels")
    channels, out, groups = layer.shape[0], settings.num_output, settings.group
    if groups < 1 or channels % groups or out % groups or out < 1:
        raise ValueError(f"{channels} channels cannot become {out} in {groups} groups.")
    kernel = _sizes(settings, "kernel_size", 0, 1)
    transposed = layer.type == "Deconvolution"
    planes = (channels, out // groups) if transposed else (out, channels // groups)
    shapes: list[Shape] = [(*planes, *kernel)]
    if settings.bias_term:
        shapes.append((out,))
    weight, *bias = layer.blobs(*shapes)
    height, width = _sizes(settings, "pad", 0, 0)
    kind = ConvTranspose if transposed else Conv
    return layer.add(
        kind(
            weight,
            bias[0] if bias else None,
            stride=_sizes(settings, "stride", 1, 1),
            padding=((height, height), (width, width)),
            dilation=_sizes(settings, "dilation", 1, 1),
            groups=groups,
        )
    )


@_converts("Pooling")
def _pooling(layer: Layer) -> str:
    _require_image(layer)
    settings = layer.message.pooling_param
    _, height, width = layer.shape
    pad = _sizes(settings, "pad", 0, 0)
    stride = _sizes(settings, "stride", 1, 1)
    if settings.global_pooling:
        if pad != (0, 0) or stride != (1, 1):
            raise ValueError(f"it pools globally, with pad {pad} and stride {stride}.")
        if any(settings.HasField(name) for name in ("kernel_size", "kernel_h", "kernel_w")):
            raise ValueError("it pools globally and has a kernel size at once.")
        kernel = (height, width)
    else:
        kernel = _sizes(settings, "kernel_size", 0, 1)
    if pad[0] >= kernel[0] or pad[1] >= kernel[1]:
        raise ValueError(f"pad {pad} must be smaller than the kernel {kernel}.")
    ceil_mode = settings.round_mode == 0
    padding = ((pad[0], pad[0]), (pad[1], pad[1]))
    if settings.pool == 0:
        name = layer.add(MaxPool(kernel, stride, padding, ceil_mode=ceil_mode))
    elif settings.pool != 1:
        raise Unsupported("stochastic pooling")
    elif settings.global_pooling:
        name = layer.add(AdaptiveAvgPool((1, 1)))
    else:
        name = layer.add(AvgPool(kernel, stride, padding, ceil_mode))
    expected = tuple(
        _positions(*one, ceil_mode, clipped=any(pad))
        for one in zip((height, width), kernel, stride, pad)
    )
    if layer.graph[name].shape[1:] != expected:
        raise Unsupported(f"some of its {expected} windows lie beside the image altogether")
    return name


def _positions(
    size: int, kernel: int, stride: int, pad: int, ceil_mode: bool, clipped: bool
) -> int:
    """Number of window positions along one axis, as Caffe counts them."""
    span = size + 2 * pad - kernel
    count = (-(-span // stride) if ceil_mode else span // stride) + 1
    # Caffe drops a last window that starts in the padding, but looks only where there is any.
    return count - 1 if clipped and (count - 1) * stride >= size + pad else count


# --- A number for each channel -----------------------------------------------------------------


@_converts("BatchNorm")
def _batch_norm(layer: Layer) -> str:
    layer.require_one_input()
    settings = layer.message.batch_norm_param
    if settings.HasField("use_global_stats") and not settings.use_global_stats:
        raise Unsupported("it uses the statistics of the batch")
    channels = layer.shape[0]
    mean, variance, count = (
        blob.astype(np.float64) for blob in layer.blobs((channels,), (channels,), (1,))
    )
    factor = 1 / count[0] if count[0] else 0.0
    spread = variance * factor + settings.eps
    if not (spread > 0).all():
        raise ValueError("its variance plus eps must be positive.")
    scale = 1 / np.sqrt(spread)
    return layer.add(_channelwise(scale, -mean * factor * scale))


def _channelwise(scale: Any, shift: Any) -> BatchNorm:
    with np.errstate(over="ignore"):
        scale, shift = np.asarray(scale, np.float32), np.asarray(shift, np.float32)
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        raise ValueError("its weights come to more than float32 holds.")
    return BatchNorm(scale, shift)


@_converts("Scale")
def _scale(layer: Layer) -> str:
    settings = layer.message.scale_param
    if len(layer.inputs) == 2:
        return _gate(layer)
    layer.require_one_input()
    if layer.axis(settings.axis) != 0 or settings.num_axes != 1:
        raise Unsupported(f"it scales {settings.num_axes} axes from axis {settings.axis} on")
    shapes: list[Shape] = [(layer.shape[0],)] * (2 if settings.bias_term else 1)
    scale, *shift = layer.blobs(*shapes)
    return layer.add(_channelwise(scale, shift[0] if shift else np.zeros_like(scale)))


def _gate(layer: Layer) -> str:
    """A Scale layer with two bottoms: the second is spread over the last axes of the first."""
    settings = layer.message.scale_param
    factor = layer.graph[layer.inputs[1]].shape
    if settings.axis not in (0, -len(layer.shape) - 1) or settings.bias_term:
        raise Unsupported("it scales by a bottom, along axes without the batch or with a bias")
    if layer.shape[: len(factor)] != factor:
        raise ValueError(f"its bottoms have shapes {layer.shape} and {factor}.")
    source = layer.inputs[1]
    if len(factor) < len(layer.shape):
        spread = factor + (1,) * (len(layer.shape) - len(factor))
        source = layer.add(Reshape(spread), source, part="spread")
    return layer.add(Mul(), layer.inputs[0], source)


@_converts("Bias")
def _bias(layer: Layer) -> str:
    layer.require_one_input()
    settings = layer.message.bias_param
    if layer.axis(settings.axis) != 0 or settings.num_axes != 1:
        raise Unsupported(f"it shifts {settings.num_axes} axes from axis {settings.axis} on")
    (shift,) = layer.blobs((layer.shape[0],))
    return layer.add(_channelwise(np.ones_like(shift), shift))


@_converts("PReLU")
def _prelu(layer: Layer) -> str:
    layer.require_one_input()
    shared = layer.message.prelu_param.channel_shared
    (slope,) = layer.blobs(() if shared else layer.shape[:1])
    return layer.add(PReLU(slope.reshape(-1)))


@_converts("LRN")
def _local_response_norm(layer: Layer) -> str:
    _require_image(layer)
    settings = layer.message.lrn_param
    size = settings.local_size
    if size % 2 == 0 or size > LARGEST:
        raise ValueError(f"local_size must be odd, not {size}.")
    alpha, beta, k = (finite(name, getattr(settings, name)) for name in ("alpha", "beta", "k"))
    if settings.norm_region == 0:
        return layer.add(LocalResponseNorm(size, alpha, beta, k))
    return layer.add(LocalResponseNorm(size, alpha, beta, within_channel=True))  # k is 1 there
