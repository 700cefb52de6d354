"""aten operators that cut values into windows, and put windows side by side again."""

from __future__ import annotations

from relprop.frontends.aten_call import Call, Converter
from relprop.frontends.conversion import padding, registering
from relprop.graph import Concat, Permute, Reshape, Slice

TABLE: dict[str, Converter] = {}
_converts = registering(TABLE)

CHANNELS: dict[str, Converter] = {}
"""Those with an axis of channels, behind the batch."""

_converts_channels = registering(CHANNELS)


def _windows(call: Call, name: str, axis: int, size: int, step: int, apart: int = 1) -> str:
    """Windows along an axis of a node, in its place, and behind it the values of each.

    The values of a window lie ``apart`` from each other.
    """
    shape = call.graph[name].shape
    count = (shape[axis] - apart * (size - 1) - 1) // step + 1
    before, behind = shape[:axis], shape[axis + 1 :]
    if step == size and apart == 1:
        if count * step < shape[axis]:
            name = call.emit(Slice(axis, 0, count * step), name)
        return call.emit(Reshape((*before, count, size, *behind)), name)
    values = []
    for first in range(0, size * apart, apart):
        value = call.emit(Slice(axis, first, first + (count - 1) * step + 1, step), name)
        values.append(call.emit(Reshape((*before, count, 1, *behind)), value))
    return call.emit(Concat(axis + 1), *values)


@_converts("unfold")
def _unfold(call: Call) -> str:
    axis = call.axis(call["dimension"])
    name = _windows(call, call.input, axis, call["size"], call["step"])
    axes = [other for other in range(len(call.graph[name].shape)) if other != axis + 1]
    return call.emit(Permute((*axes, axis + 1)), name)


@_converts_channels("im2col")
def _im2col(call: Call) -> str:
    call.require_image()
    (rows, columns), steps = call["kernel_size"], call["stride"]
    pads = [(0, 0), *((pad, pad) for pad in call["padding"])]
    padded = padding(call.input_shape, pads, 0.0) if any(call["padding"]) else []
    name = call.chain(padded, call.input)
    name = _windows(call, name, 1, rows, steps[0], call["dilation"][0])
    name = _windows(call, name, 3, columns, steps[1], call["dilation"][1])
    return call.chain([Permute((0, 2, 4, 1, 3)), Reshape(call.shape)], name)


@_converts_channels("col2im")
def _col2im(call: Call) -> str:
    (height, width), (rows, columns) = call["output_size"], call["kernel_size"]
    apart = (*call["dilation"], *call["padding"]) == (1, 1, 0, 0)
    apart = apart and list(call["stride"]) == [rows, columns]
    whole = (height % rows, width % columns) == (0, 0)
    call.require(apart and whole, "only windows that cover the image side by side are supported")
    places = (height // rows, width // columns)
    windows = Reshape((call.shape[0], rows, columns, *places))
    return call.chain([windows, Permute((0, 3, 1, 4, 2)), Reshape(call.shape)], call.input)
