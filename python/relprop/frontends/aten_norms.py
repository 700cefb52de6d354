"""aten operators that normalise a sample by its own statistics; batch norm is in ``aten.py``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from relprop.frontends.aten_call import Call, Converter
from relprop.frontends.conversion import BATCH_AXIS, registering
from relprop.graph import Array, GroupNorm, LayerNorm, Permute, Shape

TABLE: dict[str, Converter] = {}
_converts = registering(TABLE)

CHANNELS: dict[str, Converter] = {}
"""Those with an axis of channels, behind the batch."""

_converts_channels = registering(CHANNELS)


def _weight(call: Call, shape: Shape) -> Array:
    weight = call.optional_parameter("weight")
    return np.ones(shape, np.float32) if weight is None else weight


def _normalised(call: Call) -> Shape:
    """The sizes of the axes that are normalised: the last, which the batch must not be one of."""
    shape = tuple(call["normalized_shape"])
    call.require(call.place.axis < call.rank - len(shape), BATCH_AXIS)
    return shape


@_converts("layer_norm", "native_layer_norm")
def _layer_norm(call: Call) -> Any:
    weight = _weight(call, _normalised(call))
    return call.first(call.emit(LayerNorm(weight, call.optional_parameter("bias"), call["eps"])))


@_converts("rms_norm")
def _rms_norm(call: Call) -> str:
    epsilon = call["eps"]
    if epsilon is None:
        epsilon = torch.finfo(call.node.meta["val"].dtype).eps
    return call.emit(LayerNorm(_weight(call, _normalised(call)), None, epsilon, centred=False))


@_converts("norm_over")
def _norm_over(call: Call) -> str:
    """What ``aten_patterns.py`` puts together, over any axes."""
    axes = sorted(call.axis(dim) for dim in call["dims"])
    shape = call.input_shape
    weight = np.full([shape[axis] for axis in axes], call["scale"] or 1.0, np.float32)
    norm = LayerNorm(weight, None, call["eps"], call["centred"])
    order = [axis for axis in range(len(shape)) if axis not in axes] + axes
    if order == list(range(len(shape))):
        return call.emit(norm)
    back = tuple(order.index(axis) for axis in range(len(shape)))
    return call.chain([Permute(tuple(order)), norm, Permute(back)], call.input)


def of_groups(call: Call, groups: int) -> Any:
    """A norm over groups of channels, as many as there are channels: instance norm."""
    channels = call.input_shape[:1]
    bias = call.optional_parameter("bias")
    bias = np.zeros(channels, np.float32) if bias is None else bias
    return call.first(call.emit(GroupNorm(groups, _weight(call, channels), bias, call["eps"])))


@_converts_channels("group_norm")
def _group_norm(call: Call) -> Any:
    return of_groups(call, call["num_groups"])


@_converts_channels("native_group_norm")
def _native_group_norm(call: Call) -> Any:
    return of_groups(call, call["group"])
