"""aten operators that move values or change nothing; see ``aten.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from relprop.frontends import masks
from relprop.frontends.aten_call import VIEWS, Call, Converter, is_data, to_array
from relprop.frontends.aten_conditions import looked_up, of_ids
from relprop.frontends.attention import repeated
from relprop.frontends.batch_axis import HOME
from relprop.frontends.conversion import BATCH_AXIS, gathered, padding, registering
from relprop.graph import Concat, Permute, Reshape, Slice

TABLE: dict[str, Converter] = {}
_converts = registering(TABLE)


def _joined(call: Call, axis: int, expand: bool) -> str:
    """Concatenate a list of tensors, each given an axis of 1 first where ``expand``."""
    names = []
    place, rank = call.place, call.node.meta["val"].ndim - expand
    for position, value in enumerate(call["tensors"]):
        if not is_data(value):
            if not value.numel():
                continue  # no prompts, no registers, say
            fits = value.ndim == rank and value.shape[place.axis] == 1
            call.require(fits, "a constant part has no batch axis")
            name = f"tensors[{position}]"
            array = to_array(name, value)
            shape = (*array.shape[: place.axis], *array.shape[place.axis + 1 :])
            call.require(not place.merged, BATCH_AXIS)
            value = call.constant(name, array.reshape(shape))
        if expand:
            shape = call.graph[value].shape
            value = call.emit(Reshape((*shape[:axis], 1, *shape[axis:])), value)
        names.append(value)
    return call.emit(Concat(axis), *names)


@_converts("cat", "concat", "concatenate")
def _cat(call: Call) -> str:
    return _joined(call, call.made_axis(call["dim"]), expand=False)


@_converts("stack")
def _stack(call: Call) -> str:
    return _joined(call, call.made_axis(call["dim"]), expand=True)


@_converts("slice", "narrow")
def _slice(call: Call) -> str:
    if "length" in call.arguments:
        call.arguments["end"] = call["start"] + call["length"]
    if call["dim"] % call.rank == call.place.axis:
        # Wherever it ends: its size is that of the batch, else it had been refused before.
        call.require(call["start"] in (None, 0) and call["step"] in (None, 1), BATCH_AXIS)
        return call.input
    axis = call.axis(call["dim"])
    start, stop, _ = slice(call["start"], call["end"]).indices(call.input_shape[axis])
    return call.emit(Slice(axis, start, stop, call["step"] or 1))


@_converts("copy")
def _copy(call: Call) -> str:
    return repeated(call, call.data("src"), call.shape)


@_converts("slice_scatter")
def _slice_scatter(call: Call) -> str:
    """What an assignment to a slice becomes: what is before, in and behind it, side by side."""
    dim = call["dim"] % len(call.node.meta["val"].shape)
    if dim == call.made.axis:  # see _slice
        call.require(call["start"] in (None, 0) and call["step"] == 1, BATCH_AXIS)
        return call.data("src")
    axis = call.made_axis(dim)
    size = call.shape[axis]
    start, stop, step = slice(call["start"], call["end"], call["step"]).indices(size)
    call.require(step == 1, f"it assigns to one entry of {step}")
    return _assigned(call, axis, start, stop)


@_converts("select_scatter")
def _select_scatter(call: Call) -> str:
    """What an assignment to one entry of an axis becomes."""
    dim = call["dim"] % call.node.meta["val"].ndim
    call.require(dim != call.made.axis, BATCH_AXIS)
    without = replace(call.made, axis=call.made.axis - (dim < call.made.axis))
    for name, place in (("self", call.made), ("src", without)):
        own = not is_data(call[name]) or call.places[call.raw[name]] == place
        call.require(own, BATCH_AXIS)
    axis = call.made_axis(dim)
    size = call.shape[axis]
    if is_data(call["src"]):
        entry = Reshape((*call.shape[:axis], 1, *call.shape[axis + 1 :]))
        call.arguments["src"] = call.emit(entry, call["src"])
    else:
        call.arguments["src"] = call["src"].unsqueeze(dim)
    start = call["index"] % size
    return _assigned(call, axis, start, start + 1)


def _assigned(call: Call, axis: int, start: int, stop: int) -> str:
    """``self`` with ``src`` for what lies between two places of an axis."""
    size = call.shape[axis]
    parts = [
        _piece(call, "self", axis, size, slice(0, start)),
        _piece(call, "src", axis, stop - start, slice(0, stop - start)),
        _piece(call, "self", axis, size, slice(stop, size)),
    ]
    return call.emit(Concat(axis), *(part for part in parts if part))


def _piece(call: Call, name: str, axis: int, size: int, piece: slice) -> str | None:
    """A piece of an argument that has so many entries along an axis of the result."""
    if piece.start >= piece.stop:
        return None
    shape = (*call.shape[:axis], size, *call.shape[axis + 1 :])
    if not is_data(call[name]):
        array = to_array(name, call.of_a_sample(name, torch.as_tensor(call[name])))
        values = np.broadcast_to(array, shape).take(range(piece.start, piece.stop), axis)
        return call.constant(name, values)
    whole = repeated(call, call.data(name), shape)
    return (
        whole if piece == slice(0, size) else call.emit(Slice(axis, piece.start, piece.stop), whole)
    )


@_converts("select")
def _select(call: Call) -> str:
    axis = call.axis(call["dim"])
    index = call["index"] % call.input_shape[axis]
    return call.emit(Reshape(call.shape), call.emit(Slice(axis, index, index + 1)))


def _pieces(call: Call, axis: int, sizes: Sequence[int]) -> list[str | None]:
    """Slices of the given sizes one after the other, those that are read."""
    read = {reader.args[1] for reader in call.node.users}
    stops = np.cumsum(sizes).tolist()
    return [
        call.emit(Slice(axis, stop - size, stop)) if position in read else None
        for position, (size, stop) in enumerate(zip(sizes, stops))
    ]


@_converts("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_split_with_sizes")
def _split(call: Call) -> list[str | None]:
    axis = call.axis(call["dim"])
    sizes = [part.shape[call["dim"]] for part in call.node.meta["val"]]
    return _pieces(call, axis, sizes)


@_converts("unbind")
def _unbind(call: Call) -> list[str | None]:
    axis = call.axis(call["dim"])
    shape = call.input_shape
    parts = _pieces(call, axis, [1] * shape[axis])
    rest = (*shape[:axis], *shape[axis + 1 :])
    return [part and call.emit(Reshape(rest), part) for part in parts]


@_converts("pad", "constant_pad_nd")
def _pad(call: Call) -> str:
    call.require(call["mode"] in (None, "constant"), f"padding mode {call['mode']!r}")
    flat = list(call["pad"])
    pairs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)][::-1]
    pairs = [(0, 0)] * (call.rank - len(pairs)) + pairs
    at = call.place.axis
    call.require(pairs[at] == (0, 0), BATCH_AXIS)
    pairs[at : at + 1] = [(0, 0)] * len(call.place.merged)
    operators = padding(call.input_shape, pairs, float(call["value"] or 0.0))
    return call.chain(operators, call.input)


@_converts(*VIEWS)
def _reshape(call: Call) -> str:
    call.require("dtype" not in call.arguments, "it reads the bytes of one type as another")
    if call.place != call.made and call.shape == call.input_shape:
        return call.input
    return call.emit(Reshape(call.shape))


def _permuted(call: Call, dims: Sequence[int]) -> str:
    axes, made = call.place.permuted(dims)
    if call.place != made and axes == tuple(range(len(axes))):
        return call.input
    return call.emit(Permute(axes))


@_converts("permute")
def _permute(call: Call) -> str:
    return _permuted(call, call["dims"])


@_converts("transpose", "swapaxes", "mT")
def _transpose(call: Call) -> str:
    dims = list(range(call.rank))
    first, second = [call[name] for name in call.arguments if name != "self"] or (-2, -1)
    dims[first], dims[second] = dims[second], dims[first]
    return _permuted(call, dims)


@_converts("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout")
def _dropout(call: Call) -> Any:
    call.require(not call["train"], "it is in train mode")
    return call.first(call.input)


@_converts("roll")
def _roll(call: Call) -> str:
    call.require(bool(call["dims"]), BATCH_AXIS)
    name = call.input
    for shift, dim in zip(call["shifts"], call["dims"]):
        axis = call.axis(dim)
        size = call.input_shape[axis]
        if shift % size:
            name = gathered(call, name, axis, np.roll(np.arange(size), shift))
    return name


@_converts("flip")
def _flip(call: Call) -> str:
    name = call.input
    for dim in call["dims"]:
        axis = call.axis(dim)
        name = gathered(call, name, axis, np.arange(call.input_shape[axis])[::-1])
    return name


@_converts("index_select")
def _index_select(call: Call) -> str:
    return _indexed(call, call["dim"], call["index"])


@_converts("index")
def _index(call: Call) -> str:
    found = [(dim, index) for dim, index in enumerate(call["indices"]) if index is not None]
    call.require(len(found) == 1, "it indexes several axes at once")
    (dim, index), *_ = found
    if is_data(index):
        call.require(dim == 1 and call.place == call.made == HOME, BATCH_AXIS)
        return looked_up(call, index)
    return _indexed(call, dim, index)


def _indexed(call: Call, dim: int, index: Any) -> str:
    """The entries of an axis at positions that the input does not enter."""
    call.require(not is_data(index), "its indices depend on the input")
    call.require(index.dtype in (torch.int32, torch.int64), f"its indices are {index.dtype}")
    axis = call.axis(dim)
    return gathered(call, call.input, axis, index.numpy() % call.input_shape[axis])


@_converts("clone", "contiguous", "alias", "detach", "lift_fresh_copy")
def _nothing(call: Call) -> str:
    return call.input


# --- What repeats values -----------------------------------------------------------------------


@_converts("expand", "expand_as", "broadcast_to")
def _expand(call: Call) -> str:
    name = call.input
    if call.graph[name].ids and call.shape != call.input_shape:
        name = of_ids(call, torch.float32)
    return repeated(call, name, call.shape)


@_converts("repeat")
def _repeat(call: Call) -> str:
    counts = list(call["repeats"])
    fresh = len(counts) - call.rank
    at = fresh + call.place.axis
    call.require(counts[at] == 1, BATCH_AXIS)
    counts[at : at + 1] = [1] * len(call.place.merged)
    name, shape = call.input, (*(1,) * fresh, *call.input_shape)
    if fresh:
        name = call.emit(Reshape(shape), name)
    for axis, count in enumerate(counts):
        if count > 1 < shape[axis]:
            name = call.emit(Concat(axis), *[name] * count)
    return repeated(call, name, call.shape)


@_converts("repeat_interleave")
def _repeat_interleave(call: Call) -> str:
    count = call["repeats"]
    call.require(isinstance(count, int) and call["dim"] is not None, "it repeats unevenly")
    axis, shape = call.axis(call["dim"]), call.input_shape
    name = call.emit(Reshape((*shape[: axis + 1], 1, *shape[axis + 1 :])))
    name = repeated(call, name, (*shape[: axis + 1], count, *shape[axis + 1 :]))
    return call.emit(Reshape(call.shape), name)


@_converts("_to_copy", "to", "type_as")
def _to_copy(call: Call) -> str:
    # The core computes in float32, so a cast that keeps or widens the type changes nothing.
    before, after = call.raw["self"].meta["val"].dtype, call.node.meta["val"].dtype
    wide = after in (torch.int32, torch.int64)
    if call.graph[call.input].ids:
        if after == torch.bool or after.is_floating_point:
            return of_ids(call, after)
        same = wide
    elif after == torch.bool != before and masks.are_whole(call.graph, call.input):
        return masks.nonzero(call, call.input)
    else:
        same = after in (before, torch.float32, torch.float64)
        same = same or (wide and masks.are_whole(call.graph, call.input))
    call.require(same, f"a cast from {before} to {after}")
    return call.input
