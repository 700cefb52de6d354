"""Lowering: what nodes of a Graph have in common on their way to steps of a Plan.

A ReLU is fused into the layer before it where the rules allow it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from relprop import _core
from relprop import rules as r
from relprop.factors import unreached
from relprop.graph import Graph, Node, Pair, Shape, clip_bounds
from relprop.layouts import Layout, layouts
from relprop.signs import nonnegative, supported

MOST_PLACES = 2**28
"""So many values one network may take from places listed one by one, 4 bytes each: a small file
can ask for far more than fit into memory."""

_ACTIVATION_RULES: dict[type, str] = {
    r.Gradient: "gradient",
    r.Deconvolution: "deconvolution",
    r.GuidedBackprop: "guided",
}
"""What an activation does with relevance that it does not hand on as it is."""

_WITH_EPSILON = r.Epsilon | r.Proportional | r.SignalTakesAll | r.HalfAndHalf

_Setting = TypeVar("_Setting", int, Pair)


@dataclass
class Lowering:
    """A Graph with its rules on the way to a Plan.

    ``tensors`` has the tensor of each node that is lowered, ``fused`` the activation that is part
    of a node's step, ``places`` counts the values that are taken from places listed one by one.
    """

    graph: Graph
    rules: Mapping[str, r.Rule]
    plan: _core.Plan
    tensors: dict[str, int] = field(default_factory=dict)
    fused: dict[str, str] = field(default_factory=dict)
    places: int = 0

    def __post_init__(self) -> None:
        self.nonnegative = nonnegative(self.graph)
        self.supported = supported(self.graph, self.rules)
        self.unreached = unreached(self.graph, self.rules)
        self.readers = self.graph.consumers()
        self.layouts = layouts(self.graph)

    def inputs(self, node: Node) -> list[int]:
        """Return the tensors that a node reads."""
        return [self.tensors[source] for source in node.inputs]

    def blocks(self, node: Node) -> bool:
        """Whether a node hands no relevance down."""
        return isinstance(self.rules[node.name], r.Zero)

    def idle(self, node: Node) -> bool:
        """Whether a node hands no relevance down, by its rule or as none arrives."""
        return self.blocks(node) or node.name in self.unreached

    def gradient(self, name: str) -> bool:
        """Whether a node hands down its derivative times the relevance."""
        return isinstance(self.rules[name], r.Gradient)

    def activation_rule(self, name: str) -> str:
        """Return what the core calls the rule of an activation."""
        return _ACTIVATION_RULES.get(type(self.rules[name]), "pass")

    def epsilon(self, node: Node) -> float | None:
        """The stabilizer of a node that is linear with constant weights; None: the gradient."""
        rule = self.rules[node.name]
        if self.gradient(node.name):
            return None
        return rule.epsilon if isinstance(rule, _WITH_EPSILON) else 1e-6

    def count_places(self, node: Node, *shape: int) -> None:
        """Make sure that a list of places of this shape may be made for ``node``."""
        self.places += math.prod(shape)
        if self.places > MOST_PLACES:
            raise ValueError(
                f"node {node.name!r} ({node.type}): with it the network takes {self.places} values "
                f"from places of their own, which is more than {MOST_PLACES}."
            )

    def move(
        self,
        source: int,
        index: NDArray[np.integer[Any]],
        value: float,
        layout: Layout,
        blocks: bool = False,
    ) -> int:
        """Values of ``source`` taken from ``index`` (shaped as the result, -1 for ``value``)."""
        return self.plan.move(
            source,
            layout.stored(index).astype(np.int32, copy=False),
            value,
            layout.extent,
            channels_first=layout.channels_last,
            blocks=blocks,
        )

    def broadcast(self, node: Node, source: str) -> int:
        """The tensor of ``source`` in the shape and layout of ``node``."""
        before, after = self.layouts[source], self.layouts[node.name]
        if before == after:
            return self.tensors[source]
        self.count_places(node, *node.shape)
        index = np.broadcast_to(before.places(), node.shape)
        return self.move(self.tensors[source], index, 0.0, after)

    def in_rows(self, source: str, axes: tuple[int, ...] | None = None) -> int:
        """The tensor of ``source`` in the order of its axes, or of ``axes``."""
        before = self.layouts[source]
        places = before.places()
        if axes is not None:
            places = places.transpose(axes)
        if _ascending(places):
            return self.tensors[source]
        self.count_places(self.graph[source], *places.shape)
        return self.move(self.tensors[source], places, 0.0, Layout(places.shape, False))

    def out_of_rows(
        self,
        node: Node,
        make: Callable[[Layout], int],
        shape: Shape | None = None,
        axes: tuple[int, ...] | None = None,
        as_rows: bool = False,
    ) -> int:
        """The node's tensor, of what a step makes in rows of ``shape``, by default the node's.

        ``make`` adds the step, whose tensor has the layout that it is given; ``axes`` is the order
        of the rows' axes that makes them the node's; ``as_rows`` where the step's tensor must be
        an image of rows.
        """
        after, rows = self.layouts[node.name], Layout(shape or node.shape, False)
        places = rows.places()
        places = (places if axes is None else places.transpose(axes)).reshape(node.shape)
        if _ascending(after.stored(places)) and (not as_rows or after.extent == rows.extent):
            return make(after)
        self.count_places(node, *node.shape)
        return self.move(make(rows), places, 0.0, after)

    def clamp(
        self, node: Node, *, needs_value: bool, relu_alone: bool = False
    ) -> tuple[float, float] | None:
        """Bounds of the activation that can be fused into ``node``, which is then recorded.

        A layer whose rule needs its value before the ReLU keeps it, unless no relevance
        arrives where the ReLU changes anything. Where a ReLU changes relevance it stays a step:
        its value is the layer's, its relevance is not. ``relu_alone`` where the node's step
        knows no other bounds.
        """
        if len(self.readers[node.name]) != 1 or node.name == self.graph.output:
            return None
        reader = self.readers[node.name][0]
        bounds = clip_bounds(reader.operator)
        if bounds is None or bounds[0] == bounds[1] or self.blocks(reader):
            return None
        harmless = bounds == (0.0, math.inf) and node.name in self.supported
        if (needs_value and not harmless) or (relu_alone and bounds != (0.0, math.inf)):
            return None
        self.fused[node.name] = reader.name
        return bounds

    def arrange(
        self, source: int, before: Layout, index: NDArray[np.integer[Any]], node: Node
    ) -> int:
        """``source``, of layout ``before``, ordered by ``index``; itself if that is its order."""
        after = self.layouts[node.name]
        alike = before.extent == after.extent and (
            before.channels_last == after.channels_last or before.extent[:3] == (1, 1, 1)
        )
        if index.size != math.prod(before.shape) or not _ascending(after.stored(index)):
            return self.move(source, index, 0.0, after, self.blocks(node))
        # Shared by other readers, the tensor's relevance is the sum of theirs, not this node's.
        alone = len(self.readers[node.inputs[0]]) == 1
        if alike and alone and not self.blocks(node):
            return source
        return self.plan.view(
            source,
            after.extent,
            channels_first=after.channels_last,
            blocks=self.blocks(node),
        )


def _ascending(places: NDArray[np.integer[Any]]) -> bool:
    """Whether places are 0, 1, 2 and so on."""
    return np.array_equal(places.ravel(), np.arange(places.size))


Table: TypeAlias = dict[type, Callable[[Lowering, Node], int]]
"""For each operator what adds its steps to the Plan and returns the tensor of its output."""


def deep(settings: tuple[_Setting, ...], default: _Setting) -> tuple[_Setting, _Setting, _Setting]:
    """Settings along depth, height and width, of which the first may be missing."""
    depth, height, width = (default,) * (3 - len(settings)) + settings
    return depth, height, width
