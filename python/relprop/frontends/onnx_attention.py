"""ONNX operators that multiply branches, or choose by a constant mask; see ``attention.py``."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx

from relprop.frontends import attention, einsum
from relprop.frontends.batch_axis import HOME
from relprop.frontends.conversion import BATCH_AXIS, registering
from relprop.frontends.onnx_call import Call, Converter
from relprop.frontends.onnx_conditions import select
from relprop.frontends.onnx_tensors import Tensor
from relprop.graph import Add, Array, Mul, Permute, Reshape, Softmax

TABLE: dict[str, Converter] = {}
_converts = registering(TABLE)


@_converts("MatMul")
def _matmul(call: Call) -> str:
    behind = [call.rank_of(name) - call.place_of(name).axis - 1 for name in call.sources]
    if len(call.sources) == 2:
        call.require(min(behind) >= 2, BATCH_AXIS)
        return attention.product(call, call.data(0), call.data(1))
    call.require(behind[0] >= (1 if call.is_data(0) else 2), BATCH_AXIS)
    ranks = [
        len(call.graph[call.data(i)].shape) + 1 if call.is_data(i) else call.versions(i)[0].ndim
        for i in (0, 1)
    ]
    rank = ranks[0] if call.is_data(0) else ranks[1]
    return _linear_map(
        call, einsum.matmul_equation(*ranks), lambda position: call.repeated(position, rank)
    )


@_converts("Einsum")
def _einsum(call: Call) -> str:
    places = {call.place_of(name) for name in call.sources}
    call.require(len(places) == 1 and call.place.axis == 0, BATCH_AXIS)
    equation, merged = call.step.text("equation", ""), call.place.merged
    if len(call.sources) == 1:
        return _linear_map(call, equation, call.known, merged)
    count = len(call.step.inputs)
    call.require(len(call.sources) == count, "it multiplies branches and constants")
    return attention.contraction(call, equation, [call.data(i) for i in range(count)], merged)


def _linear_map(
    call: Call, equation: str, constant: Callable[[int], Tensor], merged: tuple[int, ...] = ()
) -> str:
    """What an einsum of one node and of constants is."""
    parts = [
        call.data(i) if call.is_data(i) else call.to_array(constant(i), "weight")
        for i in range(len(call.step.inputs))
    ]
    return attention.linear_map(call, equation, parts, merged)


@_converts("Softmax", "LogSoftmax")
def _softmax(call: Call) -> str:
    if call.step.type == "LogSoftmax":
        last = not any(call.readers.get(name) for name in call.step.outputs if name)
        call.require(last, "log softmax is supported only as the last operator")
    dim = call.step.integer("axis", 1 if call.step.opset < 13 else -1)
    axis = call.axis(dim)
    rest = call.shape[axis + 1 :]
    if call.step.opset >= 13 or math.prod(rest) == 1:
        return call.emit(Softmax(axis))
    # Over all axes from this one on, as one.
    call.require(dim % call.rank_of(call.sources[0]) > call.place.axis, BATCH_AXIS)
    flat = (*call.shape[:axis], math.prod(call.shape[axis:]))
    return call.chain([Reshape(flat), Softmax(axis), Reshape(call.shape)], call.input)


# --- Masks -------------------------------------------------------------------------------------


def finite(call: Call, values: Tensor) -> Tensor:
    """A constant that is added to data, without -inf where only a softmax reads the sum."""
    if values.dtype.kind != "f" or not np.isneginf(values).any():
        return values
    if not all(_feeds_softmax(call, name, call.step.opset) for name in call.step.outputs):
        return values
    return attention.finite(values.astype(np.float32))


_BETWEEN = ("Add", "Cast", "Dropout", "Identity", "Where")


def _feeds_softmax(call: Call, name: str, opset: int) -> bool:
    """Whether nothing reads a value but softmax over its last axis, directly or later."""
    readers = call.readers.get(name, ())
    return (
        bool(readers)
        and name not in call.outputs
        and all(
            _feeds_softmax(call, str(node.output[0]), opset)
            if node.op_type in _BETWEEN
            else _is_softmax(call, node, opset)
            for node in readers
        )
    )


def _is_softmax(call: Call, node: onnx.NodeProto, opset: int) -> bool:
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1 if opset < 13 else -1)
    last = max(map(call.rank_of, call.sources)) - 1
    return node.op_type == "Softmax" and not node.domain and axis in (-1, last)


@_converts("Where")
def _where(call: Call) -> str:
    if call.is_data(0):
        return select(call)
    rank = max(map(call.rank_of, call.sources))
    condition = call.repeated(0, rank)
    if condition.dtype.kind != "b":
        raise ValueError(f"its condition is of type {condition.dtype}")
    if not condition.any() and call.is_data(2) and not call.is_data(1) and call.known(1).size == 1:
        return call.data(2)
    parts = []
    for position, chosen in ((1, condition), (2, ~condition)):
        if call.is_data(position):
            parts.append((call.data(position), chosen))
    if len(parts) == 2:
        return call.emit(Add(), *(_kept(call, name, chosen, rank) for name, chosen in parts))
    (name, chosen), other = parts[0], call.repeated(2 if call.is_data(1) else 1, rank)
    call.step.storage.spend(8 * math.prod(np.broadcast_shapes(chosen.shape, other.shape)))
    with np.errstate(invalid="ignore"):
        values = np.where(chosen, np.zeros((), other.dtype), other)
    if not np.isneginf(values).any():
        name = _kept(call, name, chosen, rank)
    added = call.to_array(call.of_a_sample(finite(call, values), rank), "its constant")
    return call.emit(Add(), name, call.constant("fill", added)) if added.any() else name


def _kept(call: Call, name: str, chosen: Tensor, rank: int) -> str:
    """A node where a condition holds, and zero elsewhere."""
    keep = call.of_a_sample(chosen, rank).astype(np.float32)
    return call.emit(Mul(), name, call.constant("keep", keep))


# --- Attention as one operator -----------------------------------------------------------------


@_converts("Attention")
def _attention(call: Call) -> str:
    call.require({call.place_of(name) for name in call.sources} == {HOME}, BATCH_AXIS)
    step = call.step
    for position, what in ((4, "past keys"), (5, "past values"), (6, "lengths of keys")):
        call.require(not call.given(position), f"it is given {what}")
    call.require(not any(step.outputs[1:]), "only its first result is available")
    call.require(not step.number("softcap", 0.0), "it caps its products")
    for side in ("left", "right"):
        call.require(step.integer(f"{side}_window_size", -1) == -1, "it has a window")
    heads = step.integer("q_num_heads", 0), *[step.integer("kv_num_heads", 0)] * 2
    flat = len(call.graph[call.data(0)].shape) == 2
    query, key, value = (
        _apart(call, call.data(i), count) if flat else call.data(i) for i, count in enumerate(heads)
    )
    scale = step.number("scale", 0.0) or None
    made = attention.attention(call, query, key, value, scale, _mask(call, query, key))
    if not flat:
        return made
    count, rows, width = call.graph[made].shape
    return call.chain([Permute((1, 0, 2)), Reshape((rows, count * width))], made)


def _apart(call: Call, name: str, heads: int) -> str:
    """(length, heads x features) as (heads, length, features)."""
    length, width = call.graph[name].shape
    if heads < 1 or width % heads:
        raise ValueError(f"{heads} heads do not divide {width} features")
    return call.chain([Reshape((length, heads, width // heads)), Permute((1, 0, 2))], name)


def _mask(call: Call, query: str, key: str) -> Array | None:
    """What is added to the products of queries and keys."""
    rows, columns = (call.graph[name].shape[-2] for name in (query, key))
    mask = np.zeros((1, columns), np.float32)
    if call.step.integer("is_causal", 0):
        mask = mask + attention.causal(rows, columns)
    if call.given(3):
        call.require(not call.is_data(3), "its mask depends on the input")
        values = call.repeated(3, 4)
        if values.ndim == 4:
            call.require(values.shape[0] == 1, "a mask has a value of its own for each sample")
            values = values[0]
        if values.shape[-1:] != (columns,):
            raise ValueError(f"a mask of shape {values.shape} is not for {columns} keys")
        if values.dtype.kind == "b":
            values = np.where(values, np.float32(0), np.float32(-np.inf))
        hidden = np.isneginf(values)
        mask = mask + np.where(hidden, -np.inf, call.to_array(np.where(hidden, 0, values), "mask"))
    return mask.astype(np.float32) if mask.any() else None
