"""ONNX operators that move values, change nothing, or tell a shape; see ``onnx_operators.py``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx.helper import np_dtype_to_tensor_dtype

from relprop.frontends import masks
from relprop.frontends.attention import repeated
from relprop.frontends.conversion import BATCH_AXIS, gathered, padding, registering
from relprop.frontends.onnx_call import Call, Converter, Known
from relprop.frontends.onnx_conditions import are_truths, of_ids
from relprop.frontends.onnx_constants import (
    LARGEST_RESULT,
    as_integers,
    evaluate,
    part_of_shape,
    resolve_shape,
    slices,
)
from relprop.frontends.onnx_lookups import behind_own_number, of_flattened
from relprop.frontends.onnx_steps import cast_target
from relprop.frontends.onnx_tensors import FLOATS, INTEGERS, type_name
from relprop.graph import Concat, Embedding, Permute, Reshape, Slice

MOST_PARTS = 1 << 10
"""How often values are written out again one behind the other."""

TABLE: dict[str, Converter] = {}
_converts = registering(TABLE)


@_converts("Concat")
def _concat(call: Call) -> str:
    positions = behind_own_number(call)
    if positions is not None:
        return positions
    count = len(call.step.inputs)
    rank = call.rank_of(call.sources[0])
    parts = []
    for i in range(count):
        if not call.is_data(i):
            fits = all(version.ndim == rank for version in call.versions(i))
            call.require(fits, "a constant part has no batch axis of its own")
            call.require(not call.made.merged, BATCH_AXIS)
        parts.append(call.operand(i, rank, np.asarray))
    return call.emit(Concat(call.axis(call.step.integer("axis", 0))), *parts)


@_converts("Slice")
def _slice(call: Call) -> str:
    bounds = [call.versions(i) if call.given(i) else None for i in range(1, len(call.step.inputs))]
    tried = []
    for version, full in enumerate(call.full_shapes):
        at = [None if known is None else known[version] for known in bounds]
        parts = slices(call.step, at, len(full))
        size = full[call.place.axis]
        whole = parts.pop(call.place.axis, slice(None)).indices(size) == (0, size, 1)
        call.require(whole, BATCH_AXIS)
        tried.append({axis: part.indices(full[axis]) for axis, part in parts.items()})
    call.require(all(t == tried[0] for t in tried), "its bounds depend on the size of the batch")
    name = call.input
    for axis, (start, stop, by) in tried[0].items():
        call.require(by > 0, "a slice with a negative step")
        name = call.emit(Slice(call.axis(axis), start, stop, by), name)
    return name


@_converts("Gather")
def _gather(call: Call) -> str:
    if not call.is_data(0):
        call.require(call.step.integer("axis", 0) == 0, "it looks up another axis than the first")
        return call.emit(Embedding(call.array(0, "weight", 2)), call.data(1))
    dim = call.step.integer("axis", 0)
    if dim == call.place.axis and call.place.merged:
        return of_flattened(call)
    call.require(not call.is_data(1), "its indices are computed from what it reads")
    axis = call.axis(dim)
    indices = call.known(1)
    size = call.shape[axis]
    if dim % call.rank_of(call.sources[0]) < call.place.axis:
        call.made = replace(call.place, axis=call.place.axis - 1 + indices.ndim)
    if indices.dtype.kind not in "iu" or not ((-size <= indices) & (indices < size)).all():
        raise ValueError(f"its indices do not fit an axis of {size}")
    return gathered(call, call.input, axis, indices % size)


@_converts("Split")
def _split(call: Call) -> list[str]:
    axis = call.axis(call.step.integer("axis", 0))
    size, count = call.shape[axis], len(call.step.outputs)
    if call.step.integer("num_outputs", count) != count:
        raise ValueError(f"num_outputs is not the number of its {count} outputs")
    sizes = call.integers(1, "split")
    if sizes is None:
        each = -(-size // count)
        sizes = (*(each,) * (count - 1), size - each * (count - 1))
    if len(sizes) != count or sum(sizes) != size:
        raise ValueError(f"{count} parts of sizes {sizes} do not make up an axis of {size}")
    stops = np.cumsum(sizes).tolist()
    return [call.emit(Slice(axis, stop - n, stop)) for n, stop in zip(sizes, stops)]


@_converts("Pad")
def _pad(call: Call) -> str:
    mode = call.step.text("mode", "constant")
    call.require(mode == "constant", f"padding mode {mode!r}")
    flat = call.integers(1, "pads") or ()
    rank = call.rank_of(call.sources[0])
    axes = as_integers(call.known(3)) if call.given(3) else list(range(rank))
    if len(flat) != 2 * len(axes) or not all(-rank <= axis < rank for axis in axes):
        raise ValueError(f"pads {flat} do not fit {len(axes)} axes")
    pairs = [(0, 0)] * rank
    for position, axis in enumerate(axes):
        pairs[axis] = (flat[position], flat[position + len(axes)])
    at = call.place.axis
    call.require(pairs[at] == (0, 0), BATCH_AXIS)
    pairs[at : at + 1] = [(0, 0)] * len(call.place.merged)
    value = call.number(2, "value", 0.0)
    call.require(math.isfinite(value), f"it pads with {value}")
    return call.chain(padding(call.shape, pairs, value), call.input)


def _reshaped(call: Call, shapes: Sequence[Sequence[int]]) -> str:
    """The input in another shape, given with the batch for each batch size that is tried."""
    call.made = call.place.viewed_as(call.shape, shapes, call.batches)
    rest = call.made.sample(shapes[0])
    if call.made != call.place and rest == call.shape:
        return call.input
    return call.emit(Reshape(rest))


@_converts("Reshape")
def _reshape(call: Call) -> str:
    allow_zero = bool(call.step.integer("allowzero", 0))
    targets = [as_integers(version) for version in call.versions(1)]
    return _reshaped(
        call,
        [
            resolve_shape(target, full, allow_zero)
            for target, full in zip(targets, call.full_shapes)
        ],
    )


@_converts("Flatten")
def _flatten(call: Call) -> str:
    rank, axis = call.rank_of(call.sources[0]), call.step.integer("axis", 1)
    if not -rank <= axis <= rank:
        raise ValueError(f"axis {axis} does not fit a value of {rank} axes")
    axis += rank if axis < 0 else 0
    full = call.full_shapes
    return _reshaped(call, [(math.prod(s[:axis]), math.prod(s[axis:])) for s in full])


@_converts("Squeeze")
def _squeeze(call: Call) -> str:
    axes = call.integers(1, "axes")
    if axes is None:
        # With a batch of one ONNX would drop the batch axis as well.
        call.require(call.batches != (1,), "it does not say which axes")
        gone = {a for a, size in enumerate(call.full_shapes[-1]) if size == 1}
    else:
        rank = call.rank_of(call.sources[0])
        for dim in axes:
            call.axis(dim)  # of which the batch is none
        gone = {dim % rank for dim in axes}
    if any(call.full_shapes[0][axis] != 1 for axis in gone):
        raise ValueError(f"axes {axes} of shape {call.shape} are not all 1")
    shapes = [[n for a, n in enumerate(full) if a not in gone] for full in call.full_shapes]
    return _moved(call, shapes, call.place.axis - sum(a < call.place.axis for a in gone))


def _moved(call: Call, shapes: Sequence[Sequence[int]], axis: int) -> str:
    """The input with more or fewer axes of 1, and that of the batch elsewhere."""
    call.made = replace(call.place, axis=axis)
    rest = call.made.sample(shapes[0])
    if call.made != call.place and rest == call.shape:
        return call.input
    return call.emit(Reshape(rest))


@_converts("Unsqueeze")
def _unsqueeze(call: Call) -> str:
    axes = call.integers(1, "axes") or ()
    rank = call.rank_of(call.sources[0]) + len(axes)
    if not all(-rank <= dim < rank for dim in axes):
        raise ValueError(f"axes {axes} do not fit a value of {rank} axes")
    new = {dim % rank for dim in axes}
    if len(new) != len(axes):
        raise ValueError(f"axes {axes} name one axis twice")
    old = [axis for axis in range(rank) if axis not in new]
    shapes = []
    for full in call.full_shapes:
        left = iter(full)
        shapes.append([1 if axis in new else next(left) for axis in range(rank)])
    return _moved(call, shapes, old[call.place.axis])


@_converts("Transpose")
def _transpose(call: Call) -> str:
    rank = call.rank_of(call.sources[0])
    axes = call.step.integers("perm") or tuple(reversed(range(rank)))
    if sorted(axes) != list(range(rank)):
        raise ValueError(f"perm {axes} is no permutation of {rank} axes")
    order, call.made = call.place.permuted(axes)
    if call.made != call.place and order == tuple(range(len(order))):
        return call.input
    return call.emit(Permute(order))


# --- What changes nothing ----------------------------------------------------------------------


@_converts("Identity")
def _identity(call: Call) -> str:
    return call.input


@_converts("Cast")
def _cast(call: Call) -> str:
    return _as(call, cast_target(call.step))


@_converts("CastLike")
def _cast_like(call: Call) -> str | Known:
    if not call.is_data(1):
        return _as(call, np_dtype_to_tensor_dtype(call.known(1).dtype))
    ids = call.graph[call.data(1)].ids
    if call.is_data(0):
        return _as(call, INTEGERS[0] if ids else FLOATS[0])
    call.require(not ids, "a constant as an id")
    return (evaluate(call.step, [call.known(0), np.zeros((), np.float32)]),)


def _as(call: Call, kind: int) -> str:
    # The core computes in float32, whatever float the model was to run in.
    ids = call.graph[call.input].ids
    if ids and kind in (*FLOATS, onnx.TensorProto.BOOL):
        return of_ids(call, truth=kind == onnx.TensorProto.BOOL)
    same: tuple[int, ...] = INTEGERS if ids else FLOATS
    if kind == onnx.TensorProto.BOOL and are_truths(call, call.sources[0]):
        return call.input
    if not ids and masks.are_whole(call.graph, call.input):
        if kind == onnx.TensorProto.BOOL:
            return masks.nonzero(call, call.input)
        same = (*INTEGERS, *FLOATS)
    call.require(kind in same, f"a cast to {type_name(kind)}")
    return call.input


@_converts("Dropout")
def _dropout(call: Call) -> str:
    training = call.given(2) and bool(call.known(2).any())
    call.require(not training, "it is in training mode")
    return call.input


@_converts("Expand")
def _expand(call: Call) -> str:
    shapes = [
        np.broadcast_shapes(full, tuple(as_integers(target)))
        for target, full in zip(call.versions(1), call.full_shapes)
    ]
    fresh = len(shapes[0]) - call.rank_of(call.sources[0])
    call.made = replace(call.place, axis=call.place.axis + fresh)
    sample = call.made.sample(shapes[0])
    kept = (shape == call.made.full(sample, n) for shape, n in zip(shapes, call.batches))
    call.require(all(kept), BATCH_AXIS)
    limit = max(LARGEST_RESULT, math.prod(call.shape))
    call.require(math.prod(sample) <= limit, f"it makes samples of shape {sample}")
    counted = call.graph[call.input].ids and sample != call.shape
    return repeated(call, of_ids(call) if counted else call.input, sample)


@_converts("Tile")
def _tile(call: Call) -> str:
    counts = list(call.integers(1, "repeats") or ())
    if len(counts) != call.rank_of(call.sources[0]) or min(counts, default=0) < 1:
        raise ValueError(f"it repeats {counts} times along {call.rank_of(call.sources[0])} axes")
    at, name = call.place.axis, call.input
    call.require(counts[at] == 1, BATCH_AXIS)
    counts[at : at + 1] = [1] * len(call.place.merged)
    sample = tuple(n * size for n, size in zip(counts, call.shape))
    limit = max(LARGEST_RESULT, math.prod(call.shape))
    call.require(math.prod(sample) <= limit, f"it makes samples of shape {sample}")
    for axis, count in enumerate(counts):
        if count > 1 < call.shape[axis]:
            call.require(count <= MOST_PARTS, f"it repeats {count} times")
            name = call.emit(Concat(axis), *[name] * count)
    return repeated(call, name, sample)


# --- What is known of the input without its values ---------------------------------------------


@_converts("Shape")
def _shape(call: Call) -> Known:
    return tuple(part_of_shape(call.step, full) for full in call.full_shapes)


@_converts("Size")
def _size(call: Call) -> Known:
    return tuple(np.array(math.prod(full)) for full in call.full_shapes)
