"""One of Caffe's layers, as the functions that convert them see it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from relprop.frontends.conversion import BATCH_AXIS, Unsupported
from relprop.graph import Array, Constant, Graph, Mul, Operator, Shape

LARGEST = 2**31 - 1
"""Caffe's own limit for every size and for the values of a blob."""


def name_of(message: Any) -> str:
    """A layer's name, or that of its first top."""
    return str(message.name or next(iter(message.top), ""))


@dataclass
class Layer:
    """One layer: its settings, the nodes that it reads, and the Graph to add its own to."""

    message: Any
    type: str
    """By today's name; a V1 message has a number."""
    graph: Graph
    inputs: tuple[str, ...]
    weights: list[Array] | None
    """None where the caffemodel, ``source``, has none for it."""
    source: str
    batch: int | None
    """The batch size that the network names, None where it names none."""

    @property
    def shape(self) -> Shape:
        """What the first input looks like."""
        return self.graph[self.inputs[0]].shape

    def add(self, operator: Operator, *inputs: str, part: str = "") -> str:
        """Add a node that reads the layer's inputs, or those given; ``part`` tells it apart."""
        name = name_of(self.message) + (f"/{part}" if part else "")
        self.graph.add(name, operator, inputs or self.inputs)
        made = self.graph[name].shape
        if math.prod(made) > LARGEST:
            raise ValueError(f"its output of shape {made} has more than {LARGEST} values.")
        return name

    def constant(self, value: float, part: str) -> str:
        """Add a number as a node."""
        constant = Constant(np.array(value, np.float32))
        return self.graph.add(f"{name_of(self.message)}/{part}", constant)

    def scaled(self, source: str, factor: float, part: str) -> str:
        """Add a node that is another one times a number."""
        return self.add(Mul(), source, self.constant(factor, f"{part}/factor"), part=part)

    def require_one_input(self) -> None:
        """Check that the layer has one input."""
        if len(self.inputs) != 1:
            raise ValueError(f"it needs one bottom, not {len(self.inputs)}.")

    def axis(self, axis: int) -> int:
        """Return one of Caffe's axes, which count the batch, as one of the Graph's."""
        rank = len(self.shape) + 1
        if not -rank <= axis < rank:
            raise ValueError(f"axis {axis} does not fit a bottom of shape {self.shape}.")
        if axis % rank == 0:
            raise Unsupported(BATCH_AXIS)
        return axis % rank - 1

    def blobs(self, *shapes: Shape) -> list[Array]:
        """Return the layer's weights, which must have these shapes; leading ones do not count."""
        if self.weights is None:
            raise ValueError(f"{self.source} has no weights for it.")
        saved = [array.shape for array in self.weights]
        fits = len(saved) == len(shapes) and all(
            (1,) * (len(got) - len(wanted)) + wanted == got for got, wanted in zip(saved, shapes)
        )
        if not fits:
            raise ValueError(
                f"it needs weights of shape {listed(shapes)}, {self.source} has {listed(saved)}."
            )
        return [array.reshape(shape) for array, shape in zip(self.weights, shapes)]


def listed(shapes: Sequence[Shape]) -> str:
    """Shapes in words."""
    return " and ".join(map(str, shapes)) or "none"


def finite(name: str, value: float) -> float:
    """Return a setting, which must be a number."""
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, not {value}.")
    return value


Converter = Callable[[Layer], str | list[str]]
"""Adds a layer; it returns the node of its top, or those of its tops."""
