"""aten operators that choose by a constant condition: masks of attention above all.

What is hidden from a softmax is -inf in torch; in the Graph it is a number whose exponential is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from relprop.frontends.aten_call import (
    VIEWS,
    Call,
    Converter,
    bind,
    is_data,
    operator_name,
    to_array,
)
from relprop.frontends.aten_conditions import select
from relprop.frontends.attention import finite
from relprop.frontends.conversion import registering
from relprop.graph import Add, Mul

TABLE: dict[str, Converter] = {}
_converts = registering(TABLE)

_BETWEEN = {
    *VIEWS,
    *("add", "clone", "contiguous", "dropout", "masked_fill", "_to_copy", "to", "where"),
}
"""What a mask may go through on its way to a softmax."""


def hide(call: Call, name: str) -> None:
    """Make an argument that is added to data, if it is a constant, one of finite numbers."""
    if not is_data(call[name]):
        call.arguments[name] = _finite(call, torch.as_tensor(call[name]))


def _finite(call: Call, added: torch.Tensor) -> torch.Tensor:
    """The same, but for -inf where only a softmax reads the sum."""
    if added.is_complex() or not added.isneginf().any() or not _feeds_softmax(call.node):
        return added
    return torch.from_numpy(finite(added.detach().cpu().float().numpy()))


def _feeds_softmax(node: fx.Node) -> bool:
    """Whether nothing reads a value but softmax over its last axis, directly or later."""
    return bool(node.users) and all(_reads_as_softmax(reader, node) for reader in node.users)


def _reads_as_softmax(reader: fx.Node, node: fx.Node) -> bool:
    name, rank = operator_name(reader.target), node.meta["val"].ndim
    if name in ("softmax", "_softmax"):
        return bool(bind(reader)["dim"] % rank == rank - 1)
    if name not in _BETWEEN:
        return False
    shape = reader.meta["val"].shape
    return len(shape) > 0 and shape[-1] == node.meta["val"].shape[-1] and _feeds_softmax(reader)


def _chosen(call: Call, name: str, condition: torch.Tensor, fill: Any) -> str:
    """The node ``name`` where a condition holds, elsewhere a constant."""
    other = torch.as_tensor(fill)
    values = torch.where(condition, torch.zeros((), dtype=other.dtype), other)
    if not values.isneginf().any():
        keep = to_array("condition", call.of_a_sample("condition", condition))
        name = call.emit(Mul(), name, call.constant("keep", keep))
    added = to_array("fill", call.of_a_sample("fill", _finite(call, values)))
    return call.emit(Add(), name, call.constant("fill", added)) if added.any() else name


@_converts("masked_fill")
def _masked_fill(call: Call) -> str:
    call.require(not is_data(call["value"]), "its value depends on the input")
    if is_data(call["mask"]):
        return select(call, call["mask"], call["value"], call["self"])
    return _chosen(call, call.data("self"), ~call["mask"], call["value"])


@_converts("where")
def _where(call: Call) -> str:
    condition = call["condition"]
    if is_data(condition):
        return select(call, condition, call["self"], call["other"])
    if not is_data(call["other"]):
        return _chosen(call, call.data("self"), condition, call["other"])
    if not is_data(call["self"]):
        return _chosen(call, call.data("other"), ~condition, call["self"])
    parts = []
    for name, chosen in (("self", condition), ("other", ~condition)):
        keep = to_array("condition", call.of_a_sample("condition", chosen))
        parts.append(call.emit(Mul(), call.data(name), call.constant("keep", keep)))
    return call.emit(Add(), *parts)


@_converts("tril", "triu")
def _triangle(call: Call) -> str:
    shape = call.input_shape[-2:]
    call.axis(-2)  # of which the batch is none
    ones = getattr(np, operator_name(call.node.target))(np.ones(shape), call["diagonal"])
    return call.emit(Mul(), call.input, call.constant("keep", ones))
