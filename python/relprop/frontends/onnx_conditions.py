"""ONNX operators on masks that a model is given; see ``masks.py``."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import onnx

from relprop.frontends import masks
from relprop.frontends.attention import MASKED
from relprop.frontends.batch_axis import HOME
from relprop.frontends.conversion import registering
from relprop.frontends.onnx_call import Call, Converter, Known
from relprop.frontends.onnx_constants import as_integers, evaluate
from relprop.frontends.onnx_steps import cast_target
from relprop.frontends.onnx_tensors import Tensor
from relprop.graph import Array, Reshape

TABLE: dict[str, Converter] = {}
_converts = registering(TABLE)

_CARRY = (
    *("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Transpose", "Flatten"),
    *("Gather", "GatherND"),
)
"""What may hand ids on, on their way to a table."""


COMPARISONS = {
    "Equal": "eq",
    "Less": "lt",
    "LessOrEqual": "le",
    "Greater": "gt",
    "GreaterOrEqual": "ge",
}
"""And what they are to ``masks.compared``."""


def are_truths(call: Call, name: str) -> bool:
    """Whether an ONNX value that depends on the input is of truths, whatever moved it since."""
    step = call.makers.get(name)
    while step is not None and step.type in (*_CARRY, "Expand"):
        if step.type == "Cast":
            return cast_target(step) == onnx.TensorProto.BOOL
        name = step.inputs[0]
        step = call.makers.get(name)
    if step is None:  # of an input
        return call.graph[str(call.values[name])].type == "Mask"
    return step.type in (*COMPARISONS, "And", "Or", "Not")


def of_ids(call: Call, truth: bool = False) -> str:
    """The first argument's ids as numbers, or whether they are not 0."""
    ids = _ids(call, call.sources[0])
    return masks.of_ids(call, call.input, (ids != 0 if truth else ids).astype(np.float32))


def count_ids(call: Call) -> None:
    """Make arguments that are ids whole numbers, with which can be computed."""
    for name in call.sources:
        node = str(call.values[name])
        if call.graph[node].ids:
            numbers = masks.of_ids(call, node, _ids(call, name).astype(np.float32))
            call.values = {**call.values, name: numbers}


def _ids(call: Call, name: str) -> Tensor:
    """All ids that there are: as many as the smallest table that they name has rows, or two."""
    while name in call.makers:
        name = next(source for source in call.makers[name].inputs if source)
    counts: list[int] = []
    carriers, seen = [name], {name}
    while carriers:
        name = carriers.pop()
        for reader in call.readers.get(name, ()):
            if reader.op_type == "Gather" and list(reader.input[1:]) == [name]:
                table = call.tensors.get(reader.input[0])
                counts += table.dims[:1] if table else []
            elif reader.op_type in _CARRY:
                carriers += set(reader.output) - seen
                seen.update(reader.output)
    count = max(min(counts, default=2), 1)
    call.step.storage.spend(8 * count)
    return np.arange(count)


@_converts(*COMPARISONS)
def _compare(call: Call) -> str:
    at = 0 if call.is_data(0) else 1
    if len(call.sources) == 1 and call.graph[call.data(at)].ids:
        other = call.known(1 - at)
        if other.size == 1:
            pair = [_ids(call, call.sources[0]), other.reshape(())]
            meaning = evaluate(call.step, pair if at == 0 else pair[::-1])
            return masks.of_ids(call, call.data(at), meaning.astype(np.float32))
    whole = _counted(call, 0) and _counted(call, 1)
    call.require(whole, "it compares numbers that depend on a signal or are no whole ones")
    count_ids(call)
    return masks.compared(call, COMPARISONS[call.step.type], *call.operands())


def _counted(call: Call, position: int) -> bool:
    """Whether an argument is of whole numbers: ids, counted from masks, or constants."""
    if call.is_data(position):
        name = call.data(position)
        return call.graph[name].ids or masks.are_whole(call.graph, name)
    values = call.versions(position)[0]
    return values.dtype.kind in "iu" or bool((values == np.rint(values)).all())


@_converts("CumSum")
def _cumsum(call: Call) -> str:
    (dim,) = as_integers(call.known(1).reshape(-1))
    exclusive, reverse = (bool(call.step.integer(what, 0)) for what in ("exclusive", "reverse"))
    axis = call.axis(dim)
    call.step.storage.spend(4 * call.shape[axis] ** 2)
    return masks.cumulated(call, call.input, axis, exclusive, reverse)


@_converts("ArgMax")
def _argmax(call: Call) -> str:
    call.require(_counted(call, 0), "it depends on where a signal is largest")
    call.require(not call.step.integer("select_last_index", 0), "it takes the last of several")
    dim, keep = call.step.integer("axis", 0), call.step.integer("keepdims", 1)
    axis, shape = call.axis(dim), call.shape
    call.step.storage.spend(4 * shape[axis] ** 2)
    name = masks.first_largest(call, call.input, axis)
    if keep:
        return name
    before = dim % call.rank_of(call.sources[0]) < call.place.axis
    call.made = replace(call.place, axis=call.place.axis - before)
    return call.emit(Reshape((*shape[:axis], *shape[axis + 1 :])), name)


@_converts("GatherElements")
def _gather_elements(call: Call) -> str:
    """Entries of a row of constants at positions that depend on masks or ids: RoBERTa's kinds."""
    row, axis = call.repeated(0, 2), call.step.integer("axis", 0)
    one = call.place == HOME and row.ndim == 2 and len(row) == 1 and axis in (1, -1)
    call.require(one, "it looks up numbers other than in one row")
    call.step.storage.spend(4 * row.size)
    return masks.of_row(call, row[0].astype(np.float32), call.data(1))


def _truths(call: Call) -> list[str]:
    """All arguments, of truths, as nodes of zeros and ones."""
    rank = max(map(call.rank_of, call.sources))
    return [_truth(call, position, rank) for position in range(len(call.step.inputs))]


def _truth(call: Call, position: int, rank: int) -> str:
    if call.is_data(position):
        truths = are_truths(call, call.step.inputs[position])
    else:
        truths = call.repeated(position, rank).dtype.kind == "b"
    call.require(truths, f"argument {position} is not of truths")
    return call.operand(position, rank, lambda values: values.astype(np.float32))


@_converts("Not")
def _not(call: Call) -> str:
    return masks.inverse(call, *_truths(call))


@_converts("And")
def _and(call: Call) -> str:
    return masks.both(call, *_truths(call))


@_converts("Or")
def _or(call: Call) -> str:
    return masks.either(call, *_truths(call))


@_converts("IsNaN")
def _is_nan(call: Call) -> Known:
    """Nowhere: a run with such a value is refused. torch asks where a mask may hide all."""
    return (np.zeros((1,) * call.rank_of(call.sources[0]), bool),)


def select(call: Call) -> str:
    """``Where`` by a mask that is data."""
    rank = max(map(call.rank_of, call.sources))
    truth = _truth(call, 0, rank)
    yes, no = (_branch(call, position, rank) for position in (1, 2))
    shapes = [call.graph[v].shape if isinstance(v, str) else v.shape for v in (yes, no)]
    shape = np.broadcast_shapes(call.shape, *shapes)
    call.step.storage.spend(4 * math.prod(shape))
    return masks.select(call, truth, yes, no, shape)


def _branch(call: Call, position: int, rank: int) -> str | Array:
    if call.is_data(position):
        return call.data(position)
    values: Tensor = call.of_a_sample(call.repeated(position, rank), rank)
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = np.maximum(values.astype(np.float32), np.float32(MASKED))
    return call.to_array(values, "what a mask selects")
