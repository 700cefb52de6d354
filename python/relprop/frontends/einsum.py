"""Sums of products over named axes (einsum, matmul) with one operand that is data, or two.

Where every axis that data and constants share is summed over, the constants together are the
weight of a dense layer on those axes, between a change of axes before it and one behind it. Two
that are data are a matrix product, once their axes are in its order.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relprop.frontends.conversion import BATCH_AXIS, Unsupported
from relprop.graph import Array, Dense, MatMul, Operator, Permute, Reshape, Shape

LARGEST_WEIGHT = 1 << 24
"""How many values several constants may have together."""

MOST_WORK = 1 << 31
"""How many products it may take to make one of several."""


def matmul_equation(first: int, second: int) -> str:
    """What a matrix product of operands with so many axes each is as an einsum."""
    if min(first, second) < 1:
        raise ValueError("an operand of a matrix product must have axes")
    left, right = ("k" if first == 1 else "...mk"), ("k" if second == 1 else "...kp")
    return f"{left},{right}->...{'m' * (first > 1)}{'p' * (second > 1)}"


def lower(equation: str, operands: Sequence[Shape | Array], merged: Shape = ()) -> list[Operator]:
    """Return the operators that the data goes through one after the other.

    Parameters
    ----------
    equation
        In the notation of einsum.
    operands
        Arrays, and for the one operand that is data the shape of a sample, without the batch.
    merged
        Axes that samples begin with and the equation knows as one with the batch.

    Raises
    ------
    Unsupported
        If it is no linear map on some axes of each sample.
    ValueError
        If the equation is not well formed or does not fit the operands.
    """
    position = next(i for i, operand in enumerate(operands) if isinstance(operand, tuple))
    sample = operands[position]
    assert isinstance(sample, tuple)
    data_shape = (0, *sample[len(merged) :])
    shapes = [data_shape if i == position else np.shape(o) for i, o in enumerate(operands)]
    terms, out = _apart(*_parse(equation, shapes), position, len(merged))
    data = terms[position]
    sizes = dict(zip(data[1:], sample))
    constants: list[Array] = []
    letters: list[str] = []
    for term, operand in zip(terms, operands):
        if isinstance(operand, tuple):
            continue
        # An axis of 1 goes with any size of the data.
        spare = [
            i
            for i, c in enumerate(term)
            if operand.shape[i] == 1 and (c in out or sizes.get(c, 1) > 1) and c in data
        ]
        constants.append(operand.squeeze(tuple(spare)))
        letters.append("".join(c for i, c in enumerate(term) if i not in spare))
        for letter, size in zip(letters[-1], constants[-1].shape):
            if sizes.setdefault(letter, size) != size:
                raise ValueError(f"index {letter!r} is of sizes {sizes[letter]} and {size}")
    _require_linear(data, set("".join(letters)), out)
    rest = [c for c in out if c in data[1:]]
    summed = [c for c in data[1:] if c not in out]
    new = [c for c in out if c not in data]
    made = [sizes[c] for c in rest]
    operators: list[Operator] = [Permute(tuple(data[1:].index(c) for c in rest + summed))]
    if constants:
        count, features = (math.prod(sizes[c] for c in group) for group in (new, summed))
        work = math.prod(sizes[c] for c in set("".join(letters)))
        if len(constants) > 1 and (count * features > LARGEST_WEIGHT or work > MOST_WORK):
            raise Unsupported("its constants are too large to become one")
        weight = _product(constants, letters, "".join(new + summed))
        operators += [
            Reshape((*made, features)),
            Dense(weight.reshape(count, features)),
            Reshape((*made, *(sizes[c] for c in new))),
        ]
    order = rest + new
    operators.append(Permute(tuple(order.index(c) for c in out[1:])))
    return _needed(operators, sample)


def with_own_matrices(equation: str, operands: Sequence[Shape | Array]) -> str | None:
    """The equation of two nodes that one of a node and a constant is, if an index of both is kept.

    Then the constant has matrices of its own along that index, which no dense layer has.
    """
    if len(operands) != 2:
        return None
    position = int(isinstance(operands[1], tuple))
    shapes = [(0, *o) if isinstance(o, tuple) else o.shape for o in operands]
    terms, out = _parse(equation, shapes)
    data, constant = terms[position], terms[1 - position]
    sizes = dict(zip(constant, shapes[1 - position]))
    kept = any(sizes.get(letter, 1) > 1 and letter in out for letter in data[1:])
    if not kept or not data or data[0] in constant:
        return None
    terms[1 - position] = data[0] + constant
    return f"{','.join(terms)}->{out}"


@dataclass(frozen=True)
class Product:
    """A matrix product of two nodes, what each goes through before it and what comes behind."""

    left: list[Operator]
    right: list[Operator]
    product: MatMul
    behind: list[Operator]


def multiply(equation: str, samples: Sequence[Shape], merged: Shape = ()) -> Product:
    """Return the matrix product that an einsum of two operands that are data is.

    Raises
    ------
    Unsupported
        If it mixes samples, or sums over an axis of one operand alone.
    ValueError
        If the equation is not well formed or does not fit the operands.
    """
    terms, out = _parse(equation, [(0, *sample[len(merged) :]) for sample in samples])
    batch = terms[0][:1]
    if not batch or not terms[1].startswith(batch) or not out.startswith(batch):
        raise Unsupported(BATCH_AXIS)
    new = _free(*terms, out)[: len(merged)]
    left, right = (dict(zip(new + term[1:], sample)) for term, sample in zip(terms, samples))
    made = new + out[1:]
    for own, other in ((left, right), (right, left)):
        for letter in [c for c in own if own[c] == 1 < other.get(c, 1)]:
            del own[letter]  # an axis of 1 goes with any size
    sizes = {**left, **right}
    for letter in sizes:
        one, other_size = left.get(letter), right.get(letter)
        if one is None or other_size is None:
            if letter not in made:
                raise Unsupported(f"index {letter!r} is summed over in one operand alone")
        elif one != other_size:
            raise ValueError(f"index {letter!r} is of sizes {one} and {other_size}")
    both = [c for c in left if c in right]
    outer, summed = ([c for c in both if (c in made) is kept] for kept in (True, False))
    rows, columns = [c for c in left if c not in right], [c for c in right if c not in left]
    transposed = list(right) == outer + columns + summed
    order = outer + rows + columns
    behind: list[Operator] = [
        Reshape(tuple(sizes[c] for c in order)),
        Permute(tuple(order.index(c) for c in made)),
    ]
    first = _matrices(left, outer, rows, summed)
    second = _matrices(right, outer, *((columns, summed) if transposed else (summed, columns)))
    shape = (*(sizes[c] for c in outer), *(math.prod(sizes[c] for c in g) for g in (rows, columns)))
    return Product(
        _needed(first, samples[0]),
        _needed(second, samples[1]),
        MatMul(transposed),
        _needed(behind, shape),
    )


def _matrices(sizes: dict[str, int], outer: list[str], *sides: list[str]) -> list[Operator]:
    """What gives an operand the axes of ``outer`` and two more, one for all of each side."""
    order = [*outer, *sides[0], *sides[1]]
    letters = list(sizes)
    return [
        Reshape(tuple(sizes.values())),
        Permute(tuple(letters.index(c) for c in order)),
        Reshape((*(sizes[c] for c in outer), *(math.prod(sizes[c] for c in s) for s in sides))),
    ]


def _free(*used: str) -> str:
    return "".join(c for c in string.ascii_letters if not any(c in term for term in used))


def _apart(terms: list[str], out: str, position: int, count: int) -> tuple[list[str], str]:
    """Letters for so many axes that data has behind the batch's and the equation does not tell."""
    data, new = terms[position], _free(*terms, out)[:count]
    terms[position] = data[:1] + new + data[1:]
    return terms, out[:1] + new + out[1:] if out[:1] == data[:1] else out


def _parse(equation: str, shapes: Sequence[Shape]) -> tuple[list[str], str]:
    """The letters of every operand and those of the result; an ellipsis becomes letters too."""
    left, arrow, out = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise ValueError(f"{equation!r} is for {len(terms)} operands, not {len(shapes)}")
    free = [c for c in string.ascii_letters if c not in equation]
    hidden = ""
    for i, (term, shape) in enumerate(zip(terms, shapes)):
        named = term.replace("...", "", 1)
        count = len(shape) - len(named)
        if count < 0 or (count > 0 and named == term) or count > len(free):
            raise ValueError(f"{term!r} in {equation!r} does not name {len(shape)} axes")
        own = "".join(free[:count][::-1])  # from the last one on, as broadcasting goes
        terms[i] = term.replace("...", own, 1)
        hidden = max(hidden, own, key=len)
    if not arrow:
        every = "".join(terms)
        out = "..." + "".join(sorted(c for c in set(every) - set(hidden) if every.count(c) == 1))
    if "..." in out or not arrow:
        out = out.replace("...", hidden, 1)
    for term in (*terms, out):
        if not all(c in string.ascii_letters for c in term):
            raise ValueError(f"{equation!r} is no equation")
        if len(set(term)) < len(term):
            raise Unsupported(f"{equation!r} has an index twice in one operand")
    if not set(out) <= set("".join(terms)):
        raise ValueError(f"the result of {equation!r} has an index that no operand has")
    return terms, out


def _require_linear(data: str, constant: set[str], out: str) -> None:
    """Check that samples stay apart, and that what data and constants share is summed over."""
    if not data or data[0] in constant or out[:1] != data[0]:
        raise Unsupported(BATCH_AXIS)
    for letter in data[1:]:
        if letter in constant and letter in out:
            raise Unsupported(f"index {letter!r} is data's and a constant's and is not summed over")
        if letter not in constant and letter not in out:
            raise Unsupported(f"index {letter!r} is summed over without a constant")


def _product(constants: Sequence[NDArray[np.floating]], letters: list[str], out: str) -> Array:
    """All constants as one, with the axes ``out``."""
    if len(constants) > 1 or len(letters[0]) > len(out):  # else values are only moved
        constants = [array.astype(np.float64) for array in constants]
    equation = f"{','.join(letters)}->{out}"
    product = np.einsum(equation, *constants, optimize=("greedy", LARGEST_WEIGHT))
    with np.errstate(over="ignore"):
        weight: Array = np.ascontiguousarray(product, np.float32)
    if not np.isfinite(weight).all():
        raise ValueError("its constants come to more than float32 holds")
    return weight


def _needed(operators: Sequence[Operator], shape: Shape) -> list[Operator]:
    """The operators that change something."""
    kept = []
    for operator in operators:
        same = isinstance(operator, Permute) and operator.axes == tuple(range(len(shape)))
        before, shape = shape, operator.infer_shape(shape)
        if not (same or (isinstance(operator, Reshape) and before == shape)):
            kept.append(operator)
    return kept
