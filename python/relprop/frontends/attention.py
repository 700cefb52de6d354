"""What attention is in a Graph, for every front end: products of branches, masks, softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from relprop.frontends import einsum
from relprop.frontends.conversion import Builder, Unsupported
from relprop.graph import Add, Array, MatMul, Mul, Reshape, Shape, Softmax

MASKED = -1e30
"""Stands for -inf, which no Constant may hold; its exponential is 0 as well."""


def repeated(call: Builder, name: str, shape: Shape) -> str:
    """A node broadcast to another shape: times ones, which take no relevance."""
    own = call.graph[name].shape
    if own == shape:
        return name
    own = (1,) * (len(shape) - len(own)) + own
    sizes = [n if n != before else 1 for n, before in zip(shape, own)]
    return call.emit(Mul(), name, call.constant("ones", np.ones(sizes)))


def product(call: Builder, left: str, right: str, transposed: bool = False) -> str:
    """The matrix product of two nodes, whose axes before the last two are broadcast."""
    shapes = [call.graph[name].shape for name in (left, right)]
    if min(map(len, shapes)) < 2:
        raise Unsupported(f"a product of samples of shapes {shapes[0]} and {shapes[1]}")
    outer = np.broadcast_shapes(*(shape[:-2] for shape in shapes))
    names = (
        repeated(call, name, (*outer, *shape[-2:])) for name, shape in zip((left, right), shapes)
    )
    return call.emit(MatMul(transposed), *names)


def contraction(call: Builder, equation: str, names: Sequence[str], merged: Shape = ()) -> str:
    """An einsum of two nodes."""
    if len(names) != 2:
        raise Unsupported("more than two of its operands are computed from the input")
    steps = einsum.multiply(equation, [call.graph[name].shape for name in names], merged)
    left, right = (call.chain(ops, name) for ops, name in zip((steps.left, steps.right), names))
    return call.chain(steps.behind, call.emit(steps.product, left, right))


def linear_map(
    call: Builder, equation: str, operands: Sequence[str | Array], merged: Shape = ()
) -> str:
    """An einsum of one node, given by its name, and of constants."""
    (node,) = (operand for operand in operands if isinstance(operand, str))
    parts = [call.graph[o].shape if isinstance(o, str) else o for o in operands]
    of_two = None if merged else einsum.with_own_matrices(equation, parts)
    if of_two is None:
        return call.chain(einsum.lower(equation, parts, merged), node)
    names = [o if isinstance(o, str) else call.constant("matrices", o) for o in operands]
    return contraction(call, of_two, names)


def causal(rows: int, columns: int) -> Array:
    """A mask to be added, under which a row sees as many columns as come before it."""
    mask: Array = np.where(np.tri(rows, columns, dtype=bool), 0, -np.inf).astype(np.float32)
    return mask


def finite(mask: Array) -> Array:
    """A mask to be added to what a softmax over the last axis reads, with a number for -inf."""
    hidden = np.isneginf(mask)
    if hidden.ndim == 0 or hidden.all(-1).any():
        raise Unsupported("its mask leaves a row with nothing")
    masked: Array = np.where(hidden, np.float32(MASKED), mask)
    return masked


def attention(
    call: Builder,
    query: str,
    key: str,
    value: str,
    scale: float | None = None,
    mask: Array | str | None = None,
) -> str:
    """``softmax(scale * query key^T + mask) value``; several heads of queries may share a key.

    ``mask`` is a constant, or the name of a node.
    """
    *heads, rows, features = call.graph[query].shape
    *shared, columns, _ = call.graph[key].shape
    scale = 1 / math.sqrt(features) if scale is None else scale
    if scale != 1:
        query = call.emit(Mul(), query, call.constant("scale", scale))
    grouped = heads != shared and heads[-1:] != shared[-1:] and shared[-1:] != [1]
    if grouped:  # the heads of a group one below the other, as one
        groups = math.prod(heads) // math.prod(shared)
        query = call.emit(Reshape((*shared, groups * rows, features)), query)
    scores = product(call, query, key, transposed=True)
    if grouped:
        scores = call.emit(Reshape((*heads, rows, columns)), scores)
    if isinstance(mask, str):
        scores = call.emit(Add(), scores, repeated(call, mask, call.graph[scores].shape))
    elif mask is not None:
        scores = call.emit(Add(), scores, call.constant("attn_mask", finite(mask)))
    shape = call.graph[scores].shape
    weights = call.emit(Softmax(len(shape) - 1), scores)
    if not grouped:
        return product(call, weights, value)
    weights = call.emit(Reshape((*shared, groups * rows, columns)), weights)
    result = product(call, weights, value)
    return call.emit(Reshape((*heads, rows, call.graph[value].shape[-1])), result)
