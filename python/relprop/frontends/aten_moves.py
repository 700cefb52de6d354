"""aten operators that move values or change nothing; see ``aten.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from relprop.frontends.aten_call import Call, Converter, is_data, to_array
from relprop.frontends.conversion import BATCH_AXIS, padding, registering
from relprop.graph import Concat, Permute, Reshape, Slice

TABLE: dict[str, Converter] = {}
_converts = registering(TABLE)


def _joined(call: Call, axis: int, expand: bool) -> str:
    """Concatenate a list of tensors, each given an axis of 1 first where ``expand``."""
    names = []
    rank = len(call.shape) + (0 if expand else 1)
    for position, value in enumerate(call["tensors"]):
        if not is_data(value):
            call.require(
                value.ndim == rank and value.shape[0] == 1, "a constant part has no batch axis"
            )
            name = f"tensors[{position}]"
            value = call.constant(name, to_array(name, value[0]))
        if expand:
            shape = call.graph[value].shape
            value = call.emit(Reshape((*shape[:axis], 1, *shape[axis:])), value)
        names.append(value)
    return call.emit(Concat(axis), *names)


@_converts("cat", "concat", "concatenate")
def _cat(call: Call) -> str:
    return _joined(call, call.axis(call["dim"], len(call.shape) + 1), expand=False)


@_converts("stack")
def _stack(call: Call) -> str:
    return _joined(call, call.axis(call["dim"], len(call.shape) + 1), expand=True)


@_converts("slice", "narrow")
def _slice(call: Call) -> str:
    dim = call["dim"] % (len(call.input_shape) + 1)
    if "length" in call.arguments:
        call.arguments["end"] = call["start"] + call["length"]
    if dim == 0:
        # Wherever it ends: its size is that of the batch, else it had been refused before.
        call.require(call["start"] in (None, 0) and call["step"] in (None, 1), BATCH_AXIS)
        return call.input
    start, stop, _ = slice(call["start"], call["end"]).indices(call.input_shape[dim - 1])
    return call.emit(Slice(dim - 1, start, stop, call["step"] or 1))


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
    sizes = [part.shape[axis + 1] for part in call.node.meta["val"]]
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
    pairs = [(0, 0)] * (len(call.input_shape) + 1 - len(pairs)) + pairs
    call.require(pairs.pop(0) == (0, 0), BATCH_AXIS)
    operators = padding(call.input_shape, pairs, float(call["value"] or 0.0))
    return call.chain(operators, call.input)


@_converts("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze")
def _reshape(call: Call) -> str:
    call.require("dtype" not in call.arguments, "it reads the bytes of one type as another")
    return call.emit(Reshape(call.shape))


def _permuted(call: Call, dims: Sequence[int]) -> str:
    rank = len(call.input_shape) + 1
    call.require(dims[0] % rank == 0, BATCH_AXIS)
    return call.emit(Permute(tuple(call.axis(dim) for dim in dims[1:])))


@_converts("permute")
def _permute(call: Call) -> str:
    return _permuted(call, call["dims"])


@_converts("transpose", "swapaxes")
def _transpose(call: Call) -> str:
    dims = list(range(len(call.input_shape) + 1))
    first, second = (
        (call["axis0"], call["axis1"])
        if "axis0" in call.arguments
        else (call["dim0"], call["dim1"])
    )
    dims[first], dims[second] = dims[second], dims[first]
    return _permuted(call, dims)


@_converts("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout")
def _dropout(call: Call) -> Any:
    call.require(not call["train"], "it is in train mode")
    return call.first(call.input)


@_converts("clone", "contiguous", "alias", "detach", "lift_fresh_copy", "expand", "expand_as")
def _nothing(call: Call) -> str:
    call.require(call.shape == call.input_shape, "it repeats values")
    return call.input


@_converts("_to_copy", "to", "type_as")
def _to_copy(call: Call) -> str:
    # The core computes in float32, so a cast that keeps or widens the type changes nothing.
    before, after = call.raw["self"].meta["val"].dtype, call.node.meta["val"].dtype
    if call.graph[call.input].ids:
        same = after in (torch.int32, torch.int64)
    else:
        same = after in (before, torch.float32, torch.float64)
    call.require(same, f"a cast from {before} to {after}")
    return call.input
