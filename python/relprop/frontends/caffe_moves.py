"""Caffe's layers that move values, join, cut or change nothing; see ``caffe_layers.py``."""

from __future__ import annotations

import math
from itertools import pairwise

from relprop.frontends.caffe_layer import Converter, Layer
from relprop.frontends.conversion import BATCH_AXIS, Unsupported, registering
from relprop.graph import Concat, Identity, Permute, Reshape, Slice

TABLE: dict[str, Converter] = {}
_converts = registering(TABLE)


@_converts("Concat")
def _concat(layer: Layer) -> str:
    settings = layer.message.concat_param
    if settings.HasField("concat_dim") and settings.HasField("axis"):
        raise ValueError("it has axis and concat_dim at once.")
    name = "concat_dim" if settings.HasField("concat_dim") else "axis"
    return layer.add(Concat(layer.axis(getattr(settings, name))))


@_converts("Slice")
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


@_converts("Crop")
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


@_converts("Flatten")
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


@_converts("Reshape")
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


@_converts("Permute")
def _permute(layer: Layer) -> str:
    layer.require_one_input()
    rank, order = len(layer.shape) + 1, list(layer.message.permute_param.order)
    order += [axis for axis in range(rank) if axis not in order]
    if sorted(order) != list(range(rank)):
        raise ValueError(f"order {order} is no permutation of {rank} axes.")
    if order[0] != 0:
        raise Unsupported(BATCH_AXIS)
    return layer.add(Permute(tuple(axis - 1 for axis in order[1:])))


@_converts("Split")
def _split(layer: Layer) -> list[str]:
    layer.require_one_input()
    return [layer.inputs[0]] * len(layer.message.top)


@_converts("Dropout")
def _identity(layer: Layer) -> str:
    layer.require_one_input()
    return layer.add(Identity())
