"""ONNX operators that normalise a sample by its own statistics; see ``onnx_operators.py``."""

from __future__ import annotations

import numpy as np

from relprop.frontends.conversion import BATCH_AXIS, registering
from relprop.frontends.onnx_call import Call, Converter
from relprop.graph import Array, GroupNorm, LayerNorm, Shape

TABLE: dict[str, Converter] = {}
_converts = registering(TABLE)

CHANNELS: dict[str, Converter] = {}
"""Those with an axis of channels, behind the batch."""

_converts_channels = registering(CHANNELS)


@_converts("LayerNormalization", "RMSNormalization")
def _layer_norm(call: Call) -> str:
    others = sum(map(bool, call.step.outputs[1:]))
    call.require(not others, "its mean or deviation is used")
    dim = call.step.integer("axis", -1)
    axis = call.axis(dim)
    call.require(dim % call.rank_of(call.sources[0]) > call.place.axis, BATCH_AXIS)
    shape = call.shape[axis:]
    weight = _parameter(call, 1, "scale", shape)
    bias = _parameter(call, 2, "bias", shape) if call.given(2) else None
    centred = call.step.type == "LayerNormalization"
    return call.emit(LayerNorm(weight, bias, call.step.number("epsilon", 1e-5), centred))


def _parameter(call: Call, position: int, what: str, shape: Shape) -> Array:
    """An argument for each of the axes that are normalised."""
    values = call.to_array(call.known(position), what)
    full = (1,) * (values.ndim - len(shape)) + shape
    try:
        spread = np.broadcast_to(values, full)
    except ValueError:
        raise ValueError(f"{what} of shape {values.shape} does not fit axes {shape}") from None
    return np.ascontiguousarray(spread.reshape(shape))


@_converts_channels("InstanceNormalization", "GroupNormalization")
def _group_norm(call: Call) -> str:
    channels = call.shape[0] if call.shape else 0
    instance = call.step.type == "InstanceNormalization"
    groups = channels if instance else call.step.integer("num_groups", 0)
    if groups < 1 or channels % groups:
        raise ValueError(f"{groups} groups do not divide {channels} channels")
    scale, bias = (call.array(i, what, 1) for i, what in ((1, "scale"), (2, "bias")))
    each = groups if not instance and call.step.opset < 21 else channels
    if not len(scale) == len(bias) == each:
        raise ValueError(f"scale and bias must have {each} values each")
    scale, bias = (np.repeat(values, channels // each) for values in (scale, bias))
    return call.emit(GroupNorm(groups, scale, bias, call.step.number("epsilon", 1e-5)))
