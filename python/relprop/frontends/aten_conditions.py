"""aten operators on masks that a model is given: ids that become numbers, 0 for no and 1 for yes.

What an id means is a table of one number for each id, an :class:`Embedding` with one feature.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import fx

from relprop.frontends.aten_call import Call, Converter, bind, is_data, operator_name, to_array
from relprop.frontends.attention import MASKED, repeated
from relprop.frontends.conversion import Unsupported, registering
from relprop.graph import Add, Embedding, Mul, Reshape

TABLE: dict[str, Converter] = {}
_converts = registering(TABLE)


def of_ids(call: Call, meaning: torch.Tensor) -> str:
    """What each of the first argument's ids means, as a number."""
    table = to_array("what ids mean", meaning)[:, None]
    return call.emit(Reshape(call.input_shape), call.emit(Embedding(table)))


def count_of(node: fx.Node) -> int:
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
        elif isinstance(made, torch.Tensor) and made.dtype in (torch.int32, torch.int64):
            yield from _rows(reader)


@_converts("eq", "ne", "lt", "le", "gt", "ge")
def _compare(call: Call) -> str:
    reads_ids = is_data(call["self"]) and call.graph[call["self"]].ids
    call.require(reads_ids, "it compares numbers that depend on the input")
    call.require(not is_data(call["other"]), "it compares ids with each other")
    other = torch.as_tensor(call["other"])
    call.require(other.numel() == 1, "it compares ids with several numbers")
    ids = torch.arange(count_of(call.raw["self"]))
    return of_ids(call, getattr(torch, operator_name(call.node.target))(ids, other.item()))


@_converts("gather")
def _gather(call: Call) -> torch.Tensor:
    """Entries at positions that depend on the input, where all are alike: RoBERTa's kinds."""
    call.require(not is_data(call["self"]), "it looks up numbers that depend on the input")
    first = call["self"].narrow(call["dim"], 0, 1)
    alike = bool((call["self"] == first).all()) and call.place.axis == 0 and len(first) == 1
    call.require(alike, "it looks up different numbers at positions that depend on the input")
    return first.expand(1, *call.shape)


def _truth(call: Call, name: str) -> str:
    """An argument that must be a truth value for each element, as a node of zeros and ones."""
    if is_data(call[name]):
        dtype = call.raw[name].meta["val"].dtype
        call.require(dtype == torch.bool, f"{name} is of {dtype}, not of torch.bool")
        return call.data(name)
    call.require(call[name].dtype == torch.bool, f"{name} is not of torch.bool")
    return call.operand(name)


def inverse(call: Call, name: str) -> str:
    """One minus a node."""
    return call.emit(Add(), call.scaled(name, "minus", -1.0), call.constant("one", 1.0))


@_converts("logical_not", "bitwise_not")
def _not(call: Call) -> str:
    return inverse(call, _truth(call, "self"))


@_converts("logical_and", "bitwise_and", "__and__")
def _and(call: Call) -> str:
    return call.emit(Mul(), _truth(call, "self"), _truth(call, "other"))


@_converts("logical_or", "bitwise_or", "__or__")
def _or(call: Call) -> str:
    neither = (inverse(call, _truth(call, name)) for name in ("self", "other"))
    return inverse(call, call.emit(Mul(), *neither))


def select(call: Call, condition: str, yes: Any, no: Any) -> str:
    """``yes`` where a node of zeros and ones is 1, else ``no``: nodes, tensors or numbers each."""
    parts = []
    if not is_data(no) and (torch.as_tensor(no) <= MASKED).all() and is_data(yes):
        parts.append(yes)  # beside what hides it, it need not be taken out
    else:
        parts += _part(call, "yes", condition, yes)
    parts += _part(call, "no", inverse(call, condition), no)
    wide = [repeated(call, part, call.shape) for part in parts]
    if not wide:
        return repeated(call, call.scaled(condition, "zero", 0.0), call.shape)
    return call.emit(Add(), *wide) if len(wide) > 1 else wide[0]


def _part(call: Call, name: str, condition: str, value: Any) -> list[str]:
    """A value times a condition; nothing where that is 0 everywhere."""
    if is_data(value):
        shape = call.shape
        return [call.emit(Mul(), *(repeated(call, node, shape) for node in (value, condition)))]
    values = torch.as_tensor(value).detach().cpu().float().clamp(min=MASKED)
    if not values.any():
        return []
    array = to_array(name, call.of_a_sample(name, values))
    return [call.emit(Mul(), condition, call.constant(name, np.asarray(array)))]


def hiding(call: Call, truth: str) -> str:
    """What a mask adds to what a softmax reads: 0 where it is 1, else what hides."""
    return call.emit(Mul(), inverse(call, truth), call.constant("hidden", MASKED))


def own_sample(call: Call, many: Any) -> None:
    """Leave out the index of a lookup that is each sample's own number: 0 to the batch's size.

    ``many`` holds the indices for a batch of several, of which there are two or more.
    """
    first, *others = call["indices"]
    samples = torch.arange(len(many)).reshape(-1, *(1,) * (many.ndim - 1))
    rank = call.node.meta["val"].ndim
    if not torch.equal(many.cpu(), samples) or any(
        not isinstance(other, torch.Tensor) or (other.ndim == rank and len(other) != 1)
        for other in others
    ):
        raise Unsupported("it looks up other samples")
    shape = torch.broadcast_shapes(first.shape, *(other.shape for other in others))[1:]
    call.arguments["indices"] = [None, *(other.reshape(shape) for other in others)]
