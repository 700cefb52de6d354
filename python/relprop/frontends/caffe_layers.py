"""One small function per type of Caffe's layers: what it is in the Graph.

:data:`TABLE` maps layer types to these functions. Each takes a :class:`Layer`, adds nodes to its
Graph and returns the name of the last (a list where the layer has several tops), or raises
:class:`Unsupported` with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from relprop.frontends.conversion import BATCH_AXIS, Unsupported, clipping, power
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
    Function,
    Graph,
    Identity,
    LocalResponseNorm,
    Maximum,
    MaxPool,
    Mul,
    Operator,
    Pair,
    Permute,
    PReLU,
    Reshape,
    Shape,
    Slice,
    Softmax,
)

LARGEST = 2**31 - 1
"""Caffe's own limit for every size and for the values of a blob."""


def name_of(message: Any) -> str:
    """A layer's name, or that of its first top."""
    return str(message.name or next(iter(message.top), ""))


@dataclass
class Layer:
    """One layer: its settings, the nodes that it reads, and the Graph to add its own to."""

    message: Any
    graph: Graph
    inputs: tuple[str, ...]
    weights: list[Array] | None
    """None where the caffemodel, ``source``, has none for it."""
    source: str
    batch: int | None
    """The batch size that the network names, None where it names none."""

    @property
    def shape(self) -> Shape:
        """What the first input looks like."""
        return self.graph[self.inputs[0]].shape

    def add(self, operator: Operator, *inputs: str, part: str = "") -> str:
        """Add a node that reads the layer's inputs, or those given; ``part`` tells it apart."""
        name = name_of(self.message) + (f"/{part}" if part else "")
        self.graph.add(name, operator, inputs or self.inputs)
        made = self.graph[name].shape
        if math.prod(made) > LARGEST:
            raise ValueError(f"its output of shape {made} has more than {LARGEST} values.")
        return name

    def constant(self, value: float, part: str) -> str:
        """Add a number as a node."""
        constant = Constant(np.array(value, np.float32))
        return self.graph.add(f"{name_of(self.message)}/{part}", constant)

    def scaled(self, source: str, factor: float, part: str) -> str:
        """Add a node that is another one times a number."""
        return self.add(Mul(), source, self.constant(factor, f"{part}/factor"), part=part)

    def require_one_input(self) -> None:
        """Check that the layer has one input."""
        if len(self.inputs) != 1:
            raise ValueError(f"it needs one bottom, not {len(self.inputs)}.")

    def axis(self, axis: int) -> int:
        """Return one of Caffe's axes, which count the batch, as one of the Graph's."""
        rank = len(self.shape) + 1
        if not -rank <= axis < rank:
            raise ValueError(f"axis {axis} does not fit a bottom of shape {self.shape}.")
        if axis % rank == 0:
            raise Unsupported(BATCH_AXIS)
        return axis % rank - 1

    def blobs(self, *shapes: Shape) -> list[Array]:
        """Return the layer's weights, which must have these shapes; leading ones do not count."""
        if self.weights is None:
            raise ValueError(f"{self.source} has no weights for it.")
        saved = [array.shape for array in self.weights]
        fits = len(saved) == len(shapes) and all(
            (1,) * (len(got) - len(wanted)) + wanted == got for got, wanted in zip(saved, shapes)
        )
        if not fits:
            raise ValueError(
                f"it needs weights of shape {_listed(shapes)}, {self.source} has {_listed(saved)}."
            )
        return [array.reshape(shape) for array, shape in zip(self.weights, shapes)]


def _listed(shapes: Sequence[Shape]) -> str:
    return " and ".join(map(str, shapes)) or "none"


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


def _convolution(layer: Layer, transposed: bool = False) -> str:
    """A convolution, or its adjoint; only the order of the weight's first two axes differs."""
    _require_image(layer)
    settings = layer.message.convolution_param
    if layer.axis(settings.axis) != 0:
        raise Unsupported(f"axis {settings.axis} holds the channels")
    channels, out, groups = layer.shape[0], settings.num_output, settings.group
    if groups < 1 or channels % groups or out % groups or out < 1:
        raise ValueError(f"{channels} channels cannot become {out} in {groups} groups.")
    kernel = _sizes(settings, "kernel_size", 0, 1)
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


# --- Other layers with weights -----------------------------------------------------------------


def _inner_product(layer: Layer) -> str:
    layer.require_one_input()
    settings = layer.message.inner_product_param
    axis = layer.axis(settings.axis)
    kept, features, out = layer.shape[:axis], math.prod(layer.shape[axis:]), settings.num_output
    if out < 1:
        raise ValueError(f"num_output must be positive, not {out}.")
    shapes: list[Shape] = [(features, out) if settings.transpose else (out, features)]
    if settings.bias_term:
        shapes.append((out,))
    weight, *bias = layer.blobs(*shapes)
    if settings.transpose:
        weight = np.ascontiguousarray(weight.T)
    source = layer.inputs[0]
    if layer.shape != (*kept, features):
        source = layer.add(Reshape((*kept, features)), part="flatten")
    return layer.add(Dense(weight, bias[0] if bias else None), source)


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


def _bias(layer: Layer) -> str:
    layer.require_one_input()
    settings = layer.message.bias_param
    if layer.axis(settings.axis) != 0 or settings.num_axes != 1:
        raise Unsupported(f"it shifts {settings.num_axes} axes from axis {settings.axis} on")
    (shift,) = layer.blobs((layer.shape[0],))
    return layer.add(_channelwise(np.ones_like(shift), shift))


# --- Layers without weights --------------------------------------------------------------------


def _activation(function: Function) -> Callable[[Layer], str]:
    def add(layer: Layer) -> str:
        layer.require_one_input()
        return layer.add(Activation(function))

    return add


def _relu(layer: Layer) -> str:
    layer.require_one_input()
    slope = _finite("negative_slope", layer.message.relu_param.negative_slope)
    return layer.add(Activation("leaky_relu", slope) if slope else Activation("relu"))


def _elu(layer: Layer) -> str:
    layer.require_one_input()
    return layer.add(Activation("elu", _finite("alpha", layer.message.elu_param.alpha)))


def _swish(layer: Layer) -> str:
    layer.require_one_input()
    if layer.message.swish_param.beta != 1:
        raise Unsupported(f"beta is {layer.message.swish_param.beta}")
    return layer.add(Activation("silu"))


def _clip(layer: Layer) -> str:
    layer.require_one_input()
    return layer.add(clipping(layer.message.clip_param.min, layer.message.clip_param.max))


def _prelu(layer: Layer) -> str:
    layer.require_one_input()
    shared = layer.message.prelu_param.channel_shared
    (slope,) = layer.blobs(() if shared else layer.shape[:1])
    return layer.add(PReLU(slope.reshape(-1)))


def _power(layer: Layer) -> str:
    layer.require_one_input()
    settings = layer.message.power_param
    exponent, scale, shift = (_finite(n, getattr(settings, n)) for n in ("power", "scale", "shift"))
    name = layer.inputs[0]
    if scale != 1:
        name = layer.scaled(name, scale, "scale")
    if shift:
        part = "" if exponent == 1 else "sum"
        name = layer.add(Add(), name, layer.constant(shift, "shift"), part=part)
        if exponent == 1:
            return name
    return layer.add(power(exponent), name)


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, not {value}.")
    return value


def _local_response_norm(layer: Layer) -> str:
    _require_image(layer)
    settings = layer.message.lrn_param
    size = settings.local_size
    if size % 2 == 0 or size > LARGEST:
        raise ValueError(f"local_size must be odd, not {size}.")
    alpha, beta, k = (_finite(name, getattr(settings, name)) for name in ("alpha", "beta", "k"))
    if settings.norm_region == 0:
        return layer.add(LocalResponseNorm(size, alpha, beta, k))
    return layer.add(LocalResponseNorm(size, alpha, beta, within_channel=True))  # k is 1 there


def _softmax(layer: Layer) -> str:
    layer.require_one_input()
    return layer.add(Softmax(layer.axis(layer.message.softmax_param.axis)))


def _concat(layer: Layer) -> str:
    settings = layer.message.concat_param
    if settings.HasField("concat_dim") and settings.HasField("axis"):
        raise ValueError("it has axis and concat_dim at once.")
    name = "concat_dim" if settings.HasField("concat_dim") else "axis"
    return layer.add(Concat(layer.axis(getattr(settings, name))))


def _eltwise(layer: Layer) -> str:
    settings = layer.message.eltwise_param
    shapes = {layer.graph[name].shape for name in layer.inputs}
    if len(layer.inputs) < 2 or len(shapes) > 1:
        raise ValueError(f"it needs two or more bottoms of one shape, not {_listed([*shapes])}.")
    if len(settings.coeff) not in (0, len(layer.inputs)):
        raise ValueError(f"it has {len(settings.coeff)} coefficients for its bottoms.")
    if settings.operation == 0:
        if settings.coeff:
            raise ValueError("it has coefficients for a product.")
        product, *rest = layer.inputs
        for index, factor in enumerate(rest):
            last = index == len(rest) - 1
            product = layer.add(Mul(), product, factor, part="" if last else str(index))
        return product
    if settings.operation == 2:
        return layer.add(Maximum())
    branches = [
        source if factor == 1 else layer.scaled(source, _finite("coeff", factor), f"{index}")
        for index, (source, factor) in enumerate(
            zip(layer.inputs, settings.coeff or [1.0] * len(layer.inputs))
        )
    ]
    return layer.add(Add(), *branches)


def _flatten(layer: Layer) -> str:
    layer.require_one_input()
    shape, first, last = layer.shape, 0, len(layer.shape) - 1
    if hasattr(layer.message, "flatten_param"):  # V1 layers have no choice
        settings = layer.message.flatten_param
        first, last = layer.axis(settings.axis), layer.axis(settings.end_axis)
    if last < first:
        raise ValueError(f"it flattens from axis {first + 1} to {last + 1}.")
    flat = math.prod(shape[first : last + 1])
    return layer.add(Reshape((*shape[:first], flat, *shape[last + 1 :])))


def _reshape(layer: Layer) -> str:
    layer.require_one_input()
    settings = layer.message.reshape_param
    before: list[int | None] = [None, *layer.shape]  # None is the batch, whatever its size
    rank, dims = len(before), list(settings.shape.dim)
    start = settings.axis if settings.axis >= 0 else settings.axis + rank + 1
    stop = rank if settings.num_axes == -1 else start + settings.num_axes
    if not 0 <= start <= stop <= rank:
        raise ValueError(
            f"axis {settings.axis} and num_axes {settings.num_axes} do not fit {layer.shape}."
        )
    if min(dims, default=0) < -1 or dims.count(-1) > 1:
        raise ValueError(f"its shape {dims} has several unknown or negative sizes.")
    if any(size == 0 and start + i >= rank for i, size in enumerate(dims)):
        raise ValueError(f"its shape {dims} copies axes that {layer.shape} lacks.")
    made = [before[start + i] if size == 0 else size for i, size in enumerate(dims)]
    first, *rest = [*before[:start], *made, *before[stop:]] or [0]
    sizes = [size for size in rest if size is not None]
    total = math.prod(layer.shape)
    if first == -1 and math.prod(sizes) == total:
        first = None
    if first not in (None, layer.batch) or len(sizes) < len(rest):
        raise Unsupported(BATCH_AXIS)
    if -1 in sizes:
        known = -math.prod(sizes)
        if total % known:
            raise ValueError(f"{layer.shape} cannot be reshaped to {tuple(sizes)}.")
        sizes[sizes.index(-1)] = total // known
    return layer.add(Reshape(tuple(sizes)))


def _slice(layer: Layer) -> list[str]:
    layer.require_one_input()
    settings = layer.message.slice_param
    if settings.HasField("slice_dim") and settings.HasField("axis"):
        raise ValueError("it has axis and slice_dim at once.")
    axis = layer.axis(settings.slice_dim if settings.HasField("slice_dim") else settings.axis)
    size, count = layer.shape[axis], len(layer.message.top)
    points = list(settings.slice_point)
    if not points:
        if size % count:
            raise ValueError(f"an axis of {size} cannot be cut into {count} equal parts.")
        points = list(range(size // count, size, size // count))
    if len(points) != count - 1:
        raise ValueError(f"it has {len(points)} slice points for {count} tops.")
    edges = [0, *points, size]
    return [
        layer.add(Slice(axis, start, stop), part=str(index))
        for index, (start, stop) in enumerate(pairwise(edges))
    ]


def _crop(layer: Layer) -> str:
    if len(layer.inputs) != 2:
        raise ValueError(f"it needs two bottoms, not {len(layer.inputs)}.")
    settings, wanted = layer.message.crop_param, layer.graph[layer.inputs[1]].shape
    first, offsets = layer.axis(settings.axis), list(settings.offset) or [0]
    axes = range(first, len(layer.shape))
    offsets *= len(axes) if len(offsets) == 1 else 1
    if len(wanted) != len(layer.shape) or len(offsets) != len(axes):
        raise ValueError(
            f"it has {len(settings.offset)} offsets and crops {layer.shape} to {wanted}."
        )
    name = layer.inputs[0]
    for axis, offset in zip(axes, offsets):
        part = "" if axis == axes[-1] else str(axis)
        name = layer.add(Slice(axis, offset, offset + wanted[axis]), name, part=part)
    return name


def _permute(layer: Layer) -> str:
    layer.require_one_input()
    rank, order = len(layer.shape) + 1, list(layer.message.permute_param.order)
    order += [axis for axis in range(rank) if axis not in order]
    if sorted(order) != list(range(rank)):
        raise ValueError(f"order {order} is no permutation of {rank} axes.")
    if order[0] != 0:
        raise Unsupported(BATCH_AXIS)
    return layer.add(Permute(tuple(axis - 1 for axis in order[1:])))


def _split(layer: Layer) -> list[str]:
    layer.require_one_input()
    return [layer.inputs[0]] * len(layer.message.top)


def _identity(layer: Layer) -> str:
    layer.require_one_input()
    return layer.add(Identity())


TABLE: dict[str, Callable[[Layer], str | list[str]]] = {
    "BNLL": _activation("softplus"),
    "BatchNorm": _batch_norm,
    "Bias": _bias,
    "Clip": _clip,
    "Concat": _concat,
    "Convolution": _convolution,
    "Crop": _crop,
    "Deconvolution": partial(_convolution, transposed=True),
    "Dropout": _identity,
    "ELU": _elu,
    "Eltwise": _eltwise,
    "Flatten": _flatten,
    "InnerProduct": _inner_product,
    "LRN": _local_response_norm,
    "PReLU": _prelu,
    "Permute": _permute,
    "Pooling": _pooling,
    "Power": _power,
    "ReLU": _relu,
    "Reshape": _reshape,
    "Scale": _scale,
    "Sigmoid": _activation("sigmoid"),
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Swish": _swish,
    "TanH": _activation("tanh"),
}
"""What to do with each type of layer; it returns the node of its top, or those of its tops."""
