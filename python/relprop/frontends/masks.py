"""What a mask that comes in is in a Graph, for every front end: ids that become numbers.

What an id means is a number of a :class:`Mask`, of truths 0 for no and 1 for yes. Numbers below
:data:`MASKED` stand for it.
"""

from __future__ import annotations

import math

import numpy as np

from relprop.frontends.attention import MASKED, repeated
from relprop.frontends.conversion import Builder, clipping, maximum_over, power, unique
from relprop.graph import (
    MOST_IDS,
    Activation,
    Add,
    Array,
    Clip,
    Concat,
    Constant,
    Dense,
    Embedding,
    Graph,
    Identity,
    Mask,
    MatMul,
    Maximum,
    MaxPool,
    Mul,
    Operator,
    Permute,
    Reshape,
    Shape,
    Slice,
)


def of_ids(call: Builder, name: str, meaning: Array) -> str:
    """What each of a node's ids means."""
    return call.emit(Mask(meaning), name)


def truths_of(graph: Graph, name: str) -> str:
    """An input of truths as a node of zeros and ones."""
    return graph.add(unique(graph, f"{name}.truths"), Mask(np.array([0, 1], np.float32)), (name,))


_KEEP_WHOLE = (
    *(Mask, Constant, Dense, Add, Mul, Maximum, MaxPool),
    *(Concat, Slice, Reshape, Permute, Identity),
)


def are_whole(graph: Graph, name: str) -> bool:
    """Whether a node's values are whole numbers that are counted from masks, as no signal is."""
    pending, seen = [name], {name}
    while pending:
        node = graph[pending.pop()]
        if not (node.constant and _keeps_whole(node.operator)):
            return False
        if not isinstance(node.operator, Mask):
            pending += set(node.inputs) - seen
            seen.update(node.inputs)
    return True


def _keeps_whole(operator: Operator) -> bool:
    """Whether an operator makes whole numbers of whole numbers."""
    if isinstance(operator, Activation):
        exponent = operator.parameter if operator.function == "power" else 0.5
        return operator.function == "relu" or (exponent > 0 and exponent.is_integer())
    if isinstance(operator, Clip):
        return all(math.isinf(bound) or bound == int(bound) for bound in vars(operator).values())
    numbers = [value for value in vars(operator).values() if isinstance(value, np.ndarray)]
    exact = all(((v == np.rint(v)) & (abs(v) <= MOST_IDS)).all() for v in numbers)
    return isinstance(operator, _KEEP_WHOLE) and exact


def nonzero(call: Builder, name: str) -> str:
    """Whether whole numbers are not 0."""
    return call.chain([power(2), clipping(0, 1)], name)


def compared(call: Builder, how: str, first: str, second: str) -> str:
    """Whether whole numbers are "eq", "ne", "lt", "le", "gt" or "ge" others."""
    if how in ("eq", "ne"):
        truth = equal(call, first, second)
    else:
        truth = at_least(call, *((first, second) if how in ("ge", "lt") else (second, first)))
    return truth if how in ("eq", "ge", "le") else inverse(call, truth)


def equal(call: Builder, first: str, second: str) -> str:
    """Whether whole numbers are the same."""
    return inverse(call, nonzero(call, _difference(call, first, second)))


def at_least(call: Builder, first: str, second: str) -> str:
    """Whether whole numbers are no less than others."""
    more = call.emit(Add(), _difference(call, first, second), call.constant("one", 1.0))
    return call.chain([clipping(0, 1)], more)


def _difference(call: Builder, first: str, second: str) -> str:
    minus = call.emit(Mul(), second, call.constant("minus", -1.0))
    return call.emit(Add(), first, minus)


def summed(call: Builder, name: str, axis: int, weight: Array) -> str:
    """A node whose axis is taken times a matrix, (new size, size)."""
    axes = len(call.graph[name].shape)
    last = [*(other for other in range(axes) if other != axis), axis]
    back = tuple(last.index(other) for other in range(axes))
    steps: list[Operator] = [Permute(tuple(last)), Dense(weight), Permute(back)]
    return call.chain(steps if axis != axes - 1 else steps[1:2], name)


def total(call: Builder, name: str, axis: int, shape: Shape) -> str:
    """The sum along an axis, in another shape; exact of whole numbers, unlike a mean."""
    ones = np.ones((1, call.graph[name].shape[axis]), np.float32)
    return call.emit(Reshape(shape), summed(call, name, axis, ones))


def cumulated(
    call: Builder, name: str, axis: int, exclusive: bool = False, reverse: bool = False
) -> str:
    """The sums of all entries up to each along an axis; of zeros and ones they are exact.

    Without itself if ``exclusive``, of those behind it if ``reverse``.
    """
    terms = np.tri(call.graph[name].shape[axis], k=-int(exclusive), dtype=np.float32)
    return summed(call, name, axis, np.ascontiguousarray(terms.T) if reverse else terms)


def first_largest(call: Builder, name: str, axis: int) -> str:
    """The position of the first of the largest whole numbers along an axis, which is kept."""
    shape = call.graph[name].shape
    largest = call.chain(maximum_over(shape, [axis], True), name)
    found = equal(call, name, largest)
    one = call.constant("one", 1.0)
    first = both(call, found, equal(call, cumulated(call, found, axis), one))
    positions = np.arange(shape[axis]).reshape(-1, *(1,) * (len(shape) - axis - 1))
    position = call.emit(Mul(), first, call.constant("positions", positions))
    return call.chain(maximum_over(shape, [axis], True), position)


def of_row(call: Builder, row: Array, positions: str) -> str:
    """The entries of a row of constants at positions that are ids, or counted from masks."""
    if call.graph[positions].ids:
        return of_ids(call, positions, row)
    entries = call.emit(Embedding(row[:, None]), positions)
    return call.emit(Reshape(call.graph[positions].shape), entries)


def looked_up(call: Builder, name: str, positions: str) -> str:
    """The entries of a node's first axis at positions that another node has, from the end below 0.

    A product with a matrix of zeros and ones, of which the entries take all relevance. Positions
    beyond the axis make it NaN, which ends a run.
    """
    (size, *rest), shape = call.graph[name].shape, call.graph[positions].shape
    flat = call.emit(Reshape((math.prod(shape),)), positions)
    below = inverse(call, at_least(call, flat, call.constant("first", 0.0)))
    turn = call.emit(Mul(), below, call.constant("size", float(size)))
    chosen = call.emit(Embedding(np.eye(size, dtype=np.float32)), call.emit(Add(), flat, turn))
    entries = call.emit(Reshape((size, math.prod(rest))), name)
    return call.emit(Reshape((*shape, *rest)), call.emit(MatMul(), chosen, entries))


def inverse(call: Builder, truth: str) -> str:
    """Whether something is not so."""
    minus = call.emit(Mul(), truth, call.constant("minus", -1.0))
    return call.emit(Add(), minus, call.constant("one", 1.0))


def both(call: Builder, first: str, second: str) -> str:
    """Whether two things are so."""
    return call.emit(Mul(), first, second)


def either(call: Builder, first: str, second: str) -> str:
    """Whether one of two things is so, or both."""
    return inverse(call, both(call, inverse(call, first), inverse(call, second)))


def hiding(call: Builder, truth: str) -> str:
    """What a mask adds to what a softmax reads: 0 where it holds, else what hides."""
    return call.emit(Mul(), inverse(call, truth), call.constant("hidden", MASKED))


def select(call: Builder, truth: str, yes: str | Array, no: str | Array, shape: Shape) -> str:
    """``yes`` where a mask holds, else ``no``: nodes, or constants that broadcast to ``shape``."""
    parts = []
    if isinstance(yes, str) and not isinstance(no, str) and (no <= MASKED).all():
        parts.append(yes)  # beside what hides it, it need not be taken out
    elif isinstance(yes, str) or yes.any():
        parts.append(_times(call, "yes", yes, truth))
    if isinstance(no, str) or no.any():
        parts.append(_times(call, "no", no, inverse(call, truth)))
    if not parts:
        parts.append(call.emit(Mul(), truth, call.constant("zero", 0.0)))
    return repeated(call, call.emit(Add(), *parts) if len(parts) > 1 else parts[0], shape)


def _times(call: Builder, name: str, value: str | Array, truth: str) -> str:
    if not isinstance(value, str):
        value = call.constant(name, np.maximum(value, np.float32(MASKED)))
    return call.emit(Mul(), value, truth)
