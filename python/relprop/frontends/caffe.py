"""Caffe networks to Graph: a prototxt and a caffemodel, read without Caffe.

The network is taken as Caffe runs it in its TEST phase. Data layers become the input, losses and
what else only measures or prints is left out. Each layer type has one small function in
``caffe_layers.py``; what no function covers is collected and raised in one error.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relprop.errors import UnsupportedOperatorError
from relprop.frontends.caffe_layer import LARGEST, Layer, name_of
from relprop.frontends.caffe_layers import TABLE
from relprop.frontends.caffe_proto import read_description, read_weights
from relprop.frontends.conversion import (
    Shapes,
    Unsupported,
    check_outputs,
    refusal,
    shapes_of,
)
from relprop.graph import Array, Graph, Input, Reshape, Shape

TEST = 1
"""The phase, by its number."""

DATA_LAYERS = {"Data", "DummyData", "HDF5Data", "ImageData", "MemoryData", "WindowData"}
LEFT_OUT = {
    "Accuracy",
    "ContrastiveLoss",
    "EuclideanLoss",
    "HDF5Output",
    "HingeLoss",
    "InfogainLoss",
    "MultinomialLogisticLoss",
    "SigmoidCrossEntropyLoss",
    "Silence",
    "SoftmaxWithLoss",
}
# Where a V1 name is not today's name in capitals.
V1_NAMES = {
    "ABSVAL": "AbsVal",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "LRN": "LRN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}


def convert(
    prototxt: str | os.PathLike[str],
    caffemodel: str | os.PathLike[str],
    shapes: Shapes | None = None,
) -> Graph:
    """Turn a Caffe network and its weights into a Graph.

    Parameters
    ----------
    prototxt
        The network in text form, one for deployment or one for training.
    caffemodel
        Its weights, found by the layers' names; those of other layers are left alone.
    shapes
        The input's shape without the batch axis, for a prototxt that holds a data layer in place
        of it; of several inputs by their order or their names. Where the prototxt tells it too,
        both must agree.

    Raises
    ------
    UnsupportedOperatorError
        If the Graph cannot represent some layers; the message lists all of them.
    ValueError
        If a file is damaged, the network is not well formed or the weights do not fit it.
    """
    path = Path(prototxt)
    description = read_description(path)
    weights = read_weights(Path(caffemodel))
    try:
        graph = _Conversion(description.net, weights, Path(caffemodel).name).run(shapes)
    except UnsupportedOperatorError as error:
        raise UnsupportedOperatorError(f"{path}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {description.complaint or error}") from None
    if description.complaint:
        raise ValueError(f"{path}: {description.complaint}")
    return graph


# --- The walk over the layers ------------------------------------------------------------------


class _Conversion:
    """Fills a Graph; ``tops`` holds the node of each blob, None behind an unsupported layer."""

    def __init__(self, net: Any, weights: dict[str, list[Array]], source: str) -> None:
        if net.layer and net.layers:
            raise ValueError("it mixes layers of both generations (layer and layers).")
        self.net = net
        self.layers = [one for one in (*net.layer, *net.layers) if _is_included(one, net.state)]
        self.weights = weights
        self.source = source
        self.graph = Graph()
        self.tops: dict[str, str | None] = {}
        self.unread: dict[str, None] = {}
        self.problems: list[str] = []

    def run(self, shapes: Shapes | None) -> Graph:
        self.batch = self._add_inputs(shapes)
        for message in self.layers:
            kind = _type(message)
            if kind == "Silence":  # it has the blobs that nobody shall see
                for name in message.bottom:
                    self.unread.pop(name, None)
            if kind in LEFT_OUT or kind in DATA_LAYERS or kind == "Input":
                continue
            try:
                self._add(message)
            except ValueError as error:
                raise ValueError(f"layer {name_of(message)!r} ({kind}): {error}") from None
        if self.problems:
            raise refusal(self.problems)
        if len(self.graph) == len(self.graph.inputs):
            raise ValueError("it has no layers.")
        outputs = check_outputs(self.graph, {name: self.tops[name] for name in self.unread})
        for name, output in outputs.items():
            shape = self.graph[output].shape
            if len(shape) > 1 and math.prod(shape) == shape[0]:  # classes, by global pooling
                operator = Reshape(shape[:1])
                outputs[name] = self.graph.add(f"{output}/flatten", operator, (output,))
        self.graph.outputs = outputs
        return self.graph

    def _add_inputs(self, given: Shapes | None) -> int | None:
        """Add the Input nodes; returns the batch size that the network names."""
        declared = _inputs(self.net, self.layers)
        if not declared:
            raise ValueError("it has no input.")
        shapes = shapes_of(given, list(declared))
        sizes = {self._add_input(name, dims, shapes[name]) for name, dims in declared.items()}
        known = sorted(size for size in sizes if size is not None)
        if len(known) > 1:
            raise ValueError(f"its inputs have batches of different sizes: {known}.")
        return known[0] if known else None

    def _add_input(self, name: str, dims: Shape | None, given: Shape | None) -> int | None:
        if dims is None and given is None:
            raise ValueError(
                f"its data layer does not tell the shape of {name!r}: give the input's shape, "
                "such as (3, 224, 224), as example."
            )
        shape = tuple(given or ()) if dims is None else dims[1:]
        if given is not None and tuple(given) != shape:
            raise ValueError(f"its input {name!r} has shape {shape}, not {tuple(given)}.")
        if not shape or min(dims or shape) < 1 or math.prod(shape) > LARGEST:
            raise ValueError(
                f"its input {name!r} must have a batch axis and others, all positive, with at most "
                f"{LARGEST} values, not shape {dims or given}."
            )
        self.graph.add(name, Input(shape))
        self.tops[name] = name
        self.unread[name] = None
        return dims[0] if dims else None

    def _add(self, message: Any) -> None:
        """Add the nodes of one layer."""
        bottoms, tops, kind = list(message.bottom), list(message.top), _type(message)
        if not bottoms or not tops:
            raise ValueError("it needs a bottom and a top.")
        for name in bottoms:
            if name not in self.tops:
                raise ValueError(f"it reads {name!r}, which no layer before it makes.")
            self.unread.pop(name, None)
        sources = [self.tops[name] for name in bottoms]
        known = tuple(source for source in sources if source is not None)
        made: list[str | None] = [None] * len(tops)
        try:
            if kind not in TABLE:
                raise Unsupported("")
            if len(known) == len(sources):
                weights = self.weights.get(message.name)
                layer = Layer(message, kind, self.graph, known, weights, self.source, self.batch)
                result = TABLE[kind](layer)
                made = list(result) if isinstance(result, list) else [result]
        except Unsupported as error:
            reason = f": {error}" if str(error) else ""
            self.problems.append(f"layer {name_of(message)!r} ({kind}){reason}")
        if len(made) != len(tops):
            raise ValueError(f"it makes {len(made)} blobs for {len(tops)} tops.")
        for name, node in zip(tops, made):
            if name in self.tops and name not in bottoms:
                raise ValueError(f"its top {name!r} was made before.")
            self.tops[name] = node
            self.unread[name] = None


def _is_included(layer: Any, state: Any) -> bool:
    """Whether a layer belongs to the network in its TEST phase, by its own rules."""

    def met(rule: Any) -> bool:
        return (
            (not rule.HasField("phase") or rule.phase == TEST)
            and (not rule.HasField("min_level") or state.level >= rule.min_level)
            and (not rule.HasField("max_level") or state.level <= rule.max_level)
            and all(stage in state.stage for stage in rule.stage)
            and not any(stage in state.stage for stage in rule.not_stage)
        )

    if layer.include:
        return any(met(rule) for rule in layer.include)
    return not any(met(rule) for rule in layer.exclude)


def _inputs(net: Any, layers: Sequence[Any]) -> dict[str, Shape | None]:
    """Name and shape, batch included, of every input; no shape where a data layer has none."""
    shapes = [tuple(shape.dim) for shape in net.input_shape]
    dims = list(net.input_dim)
    if len(dims) % 4:
        raise ValueError(f"input_dim must have four values for each input, not {dims}.")
    shapes += [tuple(dims[i : i + 4]) for i in range(0, len(dims), 4)]
    if len(shapes) != len(net.input):
        raise ValueError(f"it has {len(net.input)} inputs and shapes for {len(shapes)}.")
    inputs: list[tuple[str, Shape | None]] = list(zip(net.input, shapes))
    for layer in layers:
        kind = _type(layer)
        if kind in DATA_LAYERS and layer.top:
            inputs.append((layer.top[0], None))  # what follows are labels
        elif kind == "Input":
            shapes = [tuple(shape.dim) for shape in layer.input_param.shape]
            if len(shapes) == 1:
                shapes *= len(layer.top)
            if len(shapes) != len(layer.top):
                raise ValueError(
                    f"layer {name_of(layer)!r} (Input): it has {len(shapes)} shapes for "
                    f"{len(layer.top)} tops."
                )
            inputs.extend(zip(layer.top, shapes))
    named = dict(inputs)
    if len(named) != len(inputs):
        raise ValueError(f"its inputs must differ in their names: {[n for n, _ in inputs]}.")
    return named


def _type(message: Any) -> str:
    """A layer's type by today's name; V1 messages have numbers."""
    if isinstance(message.type, str):
        return message.type
    if not message.type:
        raise ValueError(f"layer {name_of(message)!r} has no type.")
    names = message.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number
    name = str(names[message.type].name)
    return V1_NAMES.get(name) or "".join(word.capitalize() for word in name.split("_"))
