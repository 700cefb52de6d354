"""aten operators that multiply branches with each other; see ``attention.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from relprop.frontends import attention, einsum, masks
from relprop.frontends.aten_call import Call, Converter, is_data, to_array
from relprop.frontends.aten_masks import hide
from relprop.frontends.conversion import BATCH_AXIS, registering
from relprop.graph import Add, Array, Shape

TABLE: dict[str, Converter] = {}
_converts = registering(TABLE)


@_converts("mm", "matmul", "bmm")
def _matmul(call: Call) -> str:
    first, second = list(call.arguments)[:2]
    return _matrix_product(call, first, second)


def _matrix_product(call: Call, first: str, second: str) -> str:
    """The product of two arguments, of which at least one is data."""
    names = [name for name in (first, second) if is_data(call[name])]
    if len(names) == 2:
        _require_matrices(call, first, second)
        return attention.product(call, call[first], call[second])
    other = second if names == [first] else first
    if any(size > 1 for size in call[other].shape[:-2]):  # a matrix of its own for each head
        _require_matrices(call, *names)
        matrices = to_array(other, call.of_a_sample(other, call[other]))
        shape = (*call.shape[:-2], *matrices.shape[-2:])
        constant = call.constant(other, np.broadcast_to(matrices, shape))
        factors = (call[first], constant) if other == second else (constant, call[second])
        return attention.product(call, *factors)
    _require_matrices(call, *names, axes=1 if names == [first] else 2)
    operands = [call[first], call[second]]
    ranks = [len(call.graph[o].shape) + 1 if is_data(o) else o.ndim for o in operands]
    return _linear_map(call, einsum.matmul_equation(*ranks), operands)


def _require_matrices(call: Call, *names: str, axes: int = 2) -> None:
    """Give up where the batch is among the last axes of an argument."""
    for name in names:
        source = call.raw[name]
        behind = source.meta["val"].ndim - call.places[source].axis - 1
        call.require(behind >= axes, BATCH_AXIS)


@_converts("einsum")
def _einsum(call: Call) -> str:
    nodes = [operand for operand in call["tensors"] if is_data(operand)]
    places = {call.places[source] for source in call.raw["tensors"] if source in call.places}
    call.require(len(places) == 1 and call.made.axis == call.place.axis == 0, BATCH_AXIS)
    if len(nodes) == 1:
        return _linear_map(call, call["equation"], call["tensors"], call.made.merged)
    call.require(len(nodes) == len(call["tensors"]), "it multiplies branches and constants")
    return attention.contraction(call, call["equation"], nodes, call.made.merged)


def _linear_map(call: Call, equation: str, operands: Sequence[Any], merged: Shape = ()) -> str:
    """What an einsum of one node and of constants is."""
    parts = [o if is_data(o) else to_array("an operand", o) for o in operands]
    return attention.linear_map(call, equation, parts, merged)


@_converts("baddbmm")
def _baddbmm(call: Call) -> str:
    factors = ("batch1", "batch2")
    call.require(any(is_data(call[name]) for name in factors), "a product of constants")
    made = _matrix_product(call, *factors)
    hide(call, "self")
    if call["alpha"] != 1:
        made = call.scaled(made, "alpha", float(call["alpha"]))
    return call.emit(Add(), call.operand("self", float(call["beta"])), made)


@_converts("scaled_dot_product_attention")
def _scaled_dot_product_attention(call: Call) -> str:
    call.require(not call["dropout_p"], "it drops values at random")
    names = ("query", "key", "value")
    query, key, value = map(call.data, names)
    _require_matrices(call, *names)
    return attention.attention(call, query, key, value, call["scale"], _mask(call))


def _mask(call: Call) -> Array | str | None:
    """What is added to the products of queries and keys, -inf where a constant hides some."""
    rows, columns = (call.graph[call.data(name)].shape[-2] for name in ("query", "key"))
    if call["is_causal"]:
        return attention.causal(rows, columns)
    tensor = call["attn_mask"]
    if tensor is None:
        return None
    if is_data(tensor):
        truth = call.raw["attn_mask"].meta["val"].dtype == torch.bool
        return masks.hiding(call, tensor) if truth else call.data("attn_mask")
    tensor = call.of_a_sample("attn_mask", tensor)
    if tensor.dtype == torch.bool:
        tensor = torch.zeros(tensor.shape).masked_fill(~tensor.cpu(), -torch.inf)
    hidden = tensor.isneginf()
    values = to_array("attn_mask", tensor.masked_fill(hidden, 0))
    full = (*values.shape[:-1], columns)
    return np.broadcast_to(np.where(hidden.cpu().numpy(), np.float32(-np.inf), values), full)
