"""aten operators on masks that a model is given; see ``masks.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import fx

from relprop.frontends import masks
from relprop.frontends.aten_call import (
    VIEWS,
    Call,
    Converter,
    bind,
    is_data,
    operator_name,
    to_array,
)
from relprop.frontends.attention import MASKED
from relprop.frontends.batch_axis import HOME
from relprop.frontends.conversion import BATCH_AXIS, Unsupported, registering
from relprop.graph import Array, Reshape

TABLE: dict[str, Converter] = {}
_converts = registering(TABLE)


_CARRY = (
    *VIEWS,
    *("_to_copy", "alias", "clone", "contiguous", "detach", "expand", "index", "permute", "select"),
    *("slice", "to", "transpose", "type_as"),
)
"""What may hand ids on, on their way to a table."""


def of_ids(call: Call, dtype: torch.dtype) -> str:
    """The first argument's ids as numbers of a type."""
    return _meaning(call, torch.arange(_count(call.raw["self"])).to(dtype))


def count_ids(call: Call) -> None:
    """Make arguments that are ids whole numbers, with which can be computed."""
    for name, value in call.arguments.items():
        source = call.raw.get(name)
        if isinstance(source, fx.Node) and is_data(value) and call.graph[value].ids:
            ids = np.arange(_count(source), dtype=np.float32)
            call.arguments[name] = masks.of_ids(call, value, ids)


def _counted(call: Call, name: str) -> bool:
    """Whether an argument is of whole numbers: ids, counted from masks, or constants."""
    value = call[name]
    if is_data(value):
        return call.graph[value].ids or masks.are_whole(call.graph, value)
    value = torch.as_tensor(value)
    return not value.is_complex() and torch.equal(value.double(), value.double().round())


def _meaning(call: Call, meaning: torch.Tensor) -> str:
    return masks.of_ids(call, call.input, to_array("what ids mean", meaning))


def _count(node: fx.Node) -> int:
    """How many ids there are: the rows of the smallest embedding that reads them, otherwise two."""
    source = node
    while source.op != "placeholder":
        source = source.all_input_nodes[0]
    return min(_rows(source), default=2)


def _rows(node: fx.Node) -> Iterator[int]:
    for reader in node.users:
        made = reader.meta.get("val")
        if operator_name(reader.target) == "embedding":
            yield bind(reader)["weight"].meta["val"].shape[0]
        elif operator_name(reader.target) in _CARRY and made.dtype in (torch.int32, torch.int64):
            yield from _rows(reader)


COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


@_converts(*COMPARISONS)
def _compare(call: Call) -> str:
    how = operator_name(call.node.target)
    if is_data(call["self"]) and call.graph[call["self"]].ids and not is_data(call["other"]):
        other = torch.as_tensor(call["other"])
        if other.numel() == 1:
            ids = torch.arange(_count(call.raw["self"]))
            return _meaning(call, getattr(torch, how)(ids, other.item()))
    whole = _counted(call, "self") and _counted(call, "other")
    call.require(whole, "it compares numbers that depend on a signal or are no whole ones")
    count_ids(call)
    return masks.compared(call, how, call.operand("self"), call.operand("other"))


@_converts("cumsum")
def _cumsum(call: Call) -> str:
    return masks.cumulated(call, call.input, call.axis(call["dim"]))


@_converts("argmax")
def _argmax(call: Call) -> str:
    call.require(_counted(call, "self"), "it depends on where a signal is largest")
    call.require(call["dim"] is not None, BATCH_AXIS)
    largest = masks.first_largest(call, call.input, call.axis(call["dim"]))
    return call.emit(Reshape(call.shape), largest)


@_converts("gather")
def _gather(call: Call) -> torch.Tensor | str:
    """Entries of a row of constants at positions that depend on masks or ids: RoBERTa's kinds."""
    call.require(not is_data(call["self"]), "it looks up numbers that depend on the input")
    rows = call["self"]
    one = call.made == HOME and rows.ndim == 2 and len(rows) == 1 and call["dim"] % 2 == 1
    call.require(one, "it looks up numbers other than in one row")
    if bool((rows == rows[:, :1]).all()):
        return cast(torch.Tensor, rows[:, :1].expand(1, *call.shape))
    return masks.of_row(call, to_array("self", rows[0]), call.data("index"))


def looked_up(call: Call, positions: str) -> str:
    """The entries of the first argument behind the batch at positions that masks or ids tell."""
    if call.graph[positions].ids:
        size = np.arange(call.input_shape[0], dtype=np.float32)
        positions = masks.of_ids(call, positions, size)
    return masks.looked_up(call, call.input, positions)


def _truth(call: Call, name: str) -> str:
    """An argument that must be a truth value for each element, as a node of zeros and ones."""
    value = call.raw[name].meta["val"] if is_data(call[name]) else torch.as_tensor(call[name])
    call.require(value.dtype == torch.bool, f"{name} is of {value.dtype}, not of torch.bool")
    return call.operand(name)


@_converts("logical_not", "bitwise_not")
def _not(call: Call) -> str:
    return masks.inverse(call, _truth(call, "self"))


@_converts("logical_and", "bitwise_and", "__and__")
def _and(call: Call) -> str:
    return masks.both(call, _truth(call, "self"), _truth(call, "other"))


@_converts("logical_or", "bitwise_or", "__or__")
def _or(call: Call) -> str:
    return masks.either(call, _truth(call, "self"), _truth(call, "other"))


def select(call: Call, truth: str, yes: Any, no: Any) -> str:
    """``yes`` where a mask holds, else ``no``: nodes, tensors or numbers."""
    return masks.select(call, truth, _branch(call, yes), _branch(call, no), call.shape)


def _branch(call: Call, value: Any) -> str | Array:
    if is_data(value):
        return str(value)
    values = torch.as_tensor(value).detach().cpu().float().clamp(min=MASKED)
    return to_array("what a mask selects", call.of_a_sample("what a mask selects", values))


def own_sample(call: Call, many: torch.Tensor) -> None:
    """Leave out the index of a lookup that is each sample's own number, 0 to the batch's size.

    ``many`` is that index in a batch of two or more.
    """
    first, *others = call["indices"]
    samples = torch.arange(len(many)).reshape(-1, *(1,) * (many.ndim - 1))
    rank = call.node.meta["val"].ndim
    own = torch.equal(many.cpu(), samples)
    if own and len(others) == 1 and is_data(others[0]):
        if many.ndim != call.raw["indices"][1].meta["val"].ndim:
            raise Unsupported(BATCH_AXIS)
        call.arguments["indices"] = [None, *others]
        return
    if not own or any(
        not isinstance(other, torch.Tensor) or (other.ndim == rank and len(other) != 1)
        for other in others
    ):
        raise Unsupported("it looks up other samples")
    shape = np.broadcast_shapes(first.shape, *(other.shape for other in others))[1:]
    call.arguments["indices"] = [None, *(other.reshape(shape) for other in others)]
