"""Canonizers: a Graph in, an equivalent Graph that rules apply to better out.

Each is a pure function that leaves its argument as it is and computes in float64. Nodes that
survive keep their names. What cannot be folded exactly is not folded.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from relprop.graph import (
    AdaptiveAvgPool,
    Array,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Dense,
    Graph,
    Identity,
    MaxPool,
    Node,
    Operator,
    Pad,
    Permute,
    Reshape,
    Shape,
    Slice,
    Softmax,
)
from relprop.signs import nonnegative


def canonize(graph: Graph) -> Graph:
    """Apply every canonizer, in the order in which they help each other."""
    for canonizer in CANONIZERS:
        graph = canonizer(graph)
    return graph


def for_output(graph: Graph, output: str | None = None) -> Graph:
    """Return :meth:`Graph.explaining` one of several outputs, canonized as if it were the only one.

    What another output reads, such as the value between a convolution and its batch norm, keeps
    :func:`canonize` from folding it in the whole.
    """
    part = graph.explaining(output)
    return canonize(part) if len(graph.outputs) > 1 else part


def cut_final_softmax(graph: Graph) -> Graph:
    """Explain the logits: drop a softmax or log-softmax that ends the model, flattened or not."""
    graph = graph.pruned()
    readers = graph.consumers()
    bypass: dict[str, str] = {}
    for name, output in graph.outputs.items():
        last, others = graph[output], len(readers[output])
        while isinstance(last.operator, (Reshape, Identity)):
            last = graph[last.inputs[0]]
            others += len(readers[last.name]) - 1
        if not isinstance(last.operator, Softmax):
            continue
        if last.name == output:
            graph.outputs[name] = last.inputs[0]  # what else reads the softmax still does
        elif not others:
            bypass[last.name] = last.inputs[0]
    return rewritten(graph, {}, bypass)


def drop_no_ops(graph: Graph) -> Graph:
    """Drop identities, and what changes nothing at the shapes at hand."""
    bypass = {node.name: node.inputs[0] for node in graph if _is_no_op(graph, node)}
    return rewritten(graph, {}, bypass)


def fold_pads(graph: Graph) -> Graph:
    """Let the convolutions and pools that follow a zero pad do the padding themselves.

    Padded zeros are then no inputs of the layer, which rules that count inputs must know.
    """
    # Once for all pads: nodes that survive keep their values.
    return _sweep(graph, partial(_find_pad, positive=nonnegative(graph)))


def fold_batch_norms(graph: Graph) -> Graph:
    """Fold batch norm into the layer before it, else into the next, merging neighbours first."""
    for find in (_find_batch_norm_pair, _find_batch_norm_after, _find_batch_norm_before):
        graph = _sweep(graph, find)
    return graph


CANONIZERS: tuple[Callable[[Graph], Graph], ...] = (
    cut_final_softmax,
    drop_no_ops,
    fold_pads,
    fold_batch_norms,
)
"""All canonizers, in the order in which :func:`canonize` applies them."""


# --- Rewriting ---------------------------------------------------------------------------------

_Match = tuple[dict[str, Operator], str]
"""New operators by node, and the node that they make superfluous."""


def _sweep(
    graph: Graph, find: Callable[[Graph, Node, Mapping[str, list[Node]]], _Match | None]
) -> Graph:
    """Rewrite all places that match, again until none does."""
    while True:
        operators: dict[str, Operator] = {}
        bypass: dict[str, str] = {}
        readers = graph.consumers()
        for node in graph:
            match = find(graph, node, readers)
            if match is None or any(n in operators or n in bypass for n in (*match[0], match[1])):
                continue
            operators.update(match[0])
            bypass[match[1]] = graph[match[1]].inputs[0]
        if not bypass:
            return graph
        graph = rewritten(graph, operators, bypass)


def rewritten(graph: Graph, operators: Mapping[str, Operator], bypass: Mapping[str, str]) -> Graph:
    """Another graph with some operators exchanged and some nodes bypassed by their readers."""

    def source(name: str) -> str:
        while name in bypass:
            name = bypass[name]
        return name

    result = Graph()
    for node in graph:
        if node.name not in bypass:
            inputs = [source(name) for name in node.inputs]
            result.add(node.name, operators.get(node.name, node.operator), inputs)
    result.outputs = {name: source(output) for name, output in graph.outputs.items()}
    return result.pruned()


def _only_reader(graph: Graph, name: str, readers: Mapping[str, list[Node]]) -> bool:
    return len(readers[name]) == 1 and name not in graph.outputs.values()


# --- No-ops ------------------------------------------------------------------------------------


def _is_no_op(graph: Graph, node: Node) -> bool:
    operator = node.operator
    if isinstance(operator, Identity):
        return True
    if not node.inputs or node.shape != graph[node.inputs[0]].shape:
        return False
    if isinstance(operator, Permute):
        return operator.axes == tuple(range(len(node.shape)))
    if isinstance(operator, (MaxPool, AvgPool)):
        divides = isinstance(operator, AvgPool) and operator.divisor not in (None, 1)
        return {*operator.kernel, *operator.stride} == {1} and not divides
    # These can keep the shape only by keeping the values; a slice cannot reorder.
    return isinstance(operator, (Reshape, Slice, Pad, AdaptiveAvgPool)) or (
        isinstance(operator, Concat) and len(node.inputs) == 1
    )


# --- Pads --------------------------------------------------------------------------------------


def _find_pad(
    graph: Graph, node: Node, readers: Mapping[str, list[Node]], positive: Container[str]
) -> _Match | None:
    pad = node.operator
    if not isinstance(pad, Pad) or pad.value != 0 or pad.pads[:1] != ((0, 0),):
        return None
    if not readers[node.name] or node.name in graph.outputs.values():
        return None
    operators: dict[str, Operator] = {}
    padded = graph[node.inputs[0]]
    for reader in readers[node.name]:
        operator = _with_padding(reader.operator, pad, padded.shape, padded.name in positive)
        if operator is None or operator.infer_shape(padded.shape) != reader.shape:
            return None
        operators[reader.name] = operator
    return operators, node.name


def _with_padding(reader: Operator, pad: Pad, shape: Shape, positive: bool) -> Operator | None:
    """The reader with the pad's zeros as padding of its own, None where that is not the same.

    ``shape`` is that of what is padded, ``positive`` whether nothing of it is below zero.
    """
    if not isinstance(reader, (Conv, MaxPool, AvgPool)):
        return None
    own = reader.padding
    if len(pad.pads) != len(own) + 1:
        return None
    padding = tuple((a + c, b + d) for (a, b), (c, d) in zip(own, pad.pads[1:]))
    if isinstance(reader, Conv):
        return replace(reader, padding=padding)
    # A window that lies in the padding altogether has no maximum and no mean.
    if any(max(pads) >= kernel for pads, kernel in zip(padding, reader.kernel)):
        return None
    if isinstance(reader, MaxPool):
        # A step across the image altogether leaves nothing but padding as well.
        if any(step > size for step, size in zip(reader.dilation, shape[1:])):
            return None
        # The pool's padding never wins: the same as zeros only where nothing is below zero.
        return replace(reader, padding=padding) if positive else None
    if any(map(any, own)) and not reader.count_include_pad:
        return None
    return replace(reader, padding=padding, count_include_pad=True)


# --- Batch norm --------------------------------------------------------------------------------


def _find_batch_norm_pair(
    graph: Graph, node: Node, readers: Mapping[str, list[Node]]
) -> _Match | None:
    """Two batch norms in a row."""
    second = node.operator
    if not isinstance(second, BatchNorm) or not _only_reader(graph, node.inputs[0], readers):
        return None
    first = graph[node.inputs[0]].operator
    if not isinstance(first, BatchNorm):
        return None
    scale = _double(second.scale) * first.scale
    shift = _double(second.scale) * first.shift + second.shift
    return {node.name: BatchNorm(_single(scale), _single(shift))}, node.inputs[0]


def _find_batch_norm_after(
    graph: Graph, node: Node, readers: Mapping[str, list[Node]]
) -> _Match | None:
    """Batch norm as the only reader of a convolution of either kind, or of a dense vector."""
    norm = node.operator
    if not isinstance(norm, BatchNorm) or not _only_reader(graph, node.inputs[0], readers):
        return None
    layer = graph[node.inputs[0]]
    operator = layer.operator
    if not isinstance(operator, Conv | ConvTranspose) and not (
        isinstance(operator, Dense) and len(layer.shape) == 1
    ):
        return None
    scale = _double(norm.scale)
    each = scale
    if isinstance(operator, ConvTranspose):  # weight is (in, out / groups, *kernel)
        groups = operator.groups
        each = np.repeat(scale.reshape(groups, -1), len(operator.weight) // groups, axis=0)
    weight = operator.weight * each.reshape(*each.shape, *(1,) * (operator.weight.ndim - each.ndim))
    bias = scale * (0.0 if operator.bias is None else operator.bias) + norm.shift
    return {layer.name: replace(operator, weight=_single(weight), bias=_single(bias))}, node.name


def _find_batch_norm_before(
    graph: Graph, node: Node, readers: Mapping[str, list[Node]]
) -> _Match | None:
    """Batch norm that only convolutions without padding, or dense layers of vectors, read.

    Zero padding comes after the norm, so a shift would have to be padded too: with padding
    only a norm without shift is folded.
    """
    norm = node.operator
    if not isinstance(norm, BatchNorm) or not readers[node.name]:
        return None
    if node.name in graph.outputs.values():
        return None
    operators: dict[str, Operator] = {}
    for reader in readers[node.name]:
        operator = reader.operator
        if isinstance(operator, Conv):
            if any(map(any, operator.padding)) and norm.shift.any():
                return None
        elif not (isinstance(operator, Dense) and len(node.shape) == 1):
            return None
        operators[reader.name] = _absorb(operator, norm)
    return operators, node.name


def _absorb(layer: Conv | Dense, norm: BatchNorm) -> Conv | Dense:
    """A layer that works the batch norm of its input in."""
    weight = _double(layer.weight)
    if isinstance(layer, Conv):
        per_group = weight.shape[1]
        group = np.arange(len(weight)) // (len(weight) // layer.groups)
        channels = group[:, None] * per_group + np.arange(per_group)  # (out, in / groups)
        each = (*channels.shape, *(1,) * (weight.ndim - 2))
        scale, shift = (_double(a)[channels].reshape(each) for a in (norm.scale, norm.shift))
    else:
        scale, shift = _double(norm.scale)[None], _double(norm.shift)[None]
    moved = (weight * shift).reshape(len(weight), -1).sum(1)
    bias = moved if layer.bias is None else moved + layer.bias
    # A layer without bias stays one where there is nothing to add.
    keep = layer.bias is None and not norm.shift.any()
    return replace(layer, weight=_single(weight * scale), bias=None if keep else _single(bias))


def _double(array: Array) -> NDArray[np.float64]:
    return array.astype(np.float64)


def _single(array: NDArray[np.float64]) -> Array:
    return array.astype(np.float32)
