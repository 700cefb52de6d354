"""aten operators on masks that a model is given; see ``masks.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import fx

from relprop.frontends import masks
from relprop.frontends.aten_call import Call, Converter, bind, is_data, operator_name, to_array
from relprop.frontends.attention import MASKED
from relprop.frontends.conversion import Unsupported, registering, unique
from relprop.graph import Array, Embedding, Graph, Reshape

TABLE: dict[str, Converter] = {}
_converts = registering(TABLE)


def of_ids(call: Call, dtype: torch.dtype) -> str:
    """The first argument's ids as numbers of a type."""
    return _meaning(call, torch.arange(_count(call.raw["self"])).to(dtype))


def truths_of(graph: Graph, name: str) -> str:
    """An input of truths as a node of zeros and ones."""
    shape, table = graph[name].shape, np.array([[0], [1]], np.float32)
    looked_up = graph.add(unique(graph, f"{name}.truths"), Embedding(table), (name,))
    return graph.add(unique(graph, f"{name}.truths"), Reshape(shape), (looked_up,))


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
        elif isinstance(made, torch.Tensor) and made.dtype in (torch.int32, torch.int64):
            yield from _rows(reader)


@_converts("eq", "ne", "lt", "le", "gt", "ge")
def _compare(call: Call) -> str:
    reads_ids = is_data(call["self"]) and call.graph[call["self"]].ids
    call.require(reads_ids, "it compares numbers that depend on the input")
    call.require(not is_data(call["other"]), "it compares ids with each other")
    other = torch.as_tensor(call["other"])
    call.require(other.numel() == 1, "it compares ids with several numbers")
    ids = torch.arange(_count(call.raw["self"]))
    return _meaning(call, getattr(torch, operator_name(call.node.target))(ids, other.item()))


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
    if not torch.equal(many.cpu(), samples) or any(
        not isinstance(other, torch.Tensor) or (other.ndim == rank and len(other) != 1)
        for other in others
    ):
        raise Unsupported("it looks up other samples")
    shape = np.broadcast_shapes(first.shape, *(other.shape for other in others))[1:]
    call.arguments["indices"] = [None, *(other.reshape(shape) for other in others)]
