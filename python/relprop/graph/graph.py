"""The Graph: a model as nodes with operators, without any framework."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from relprop.graph.operators import (
    ARITY,
    CARRY_IDS,
    MOST_IDS,
    Embedding,
    Input,
    Mask,
    Operator,
)
from relprop.graph.shapes import MOST_VALUES, Shape, require
from relprop.shown import ShownByShapes


@dataclass(frozen=True, repr=False)
class Node(ShownByShapes):
    """One operator with the names of its inputs and the shape of its output.

    ``ids`` says whether the output holds ids instead of numbers, see :class:`Input`;
    ``constant`` whether it is computed from constants and masks alone, which take no relevance.
    """

    name: str
    operator: Operator
    inputs: tuple[str, ...]
    shape: Shape
    ids: bool = False
    constant: bool = False

    @property
    def type(self) -> str:
        """The operator's name, ``"Conv"`` say."""
        return type(self.operator).__name__


@dataclass
class Graph:
    """Nodes in topological order, and which of them are the model's ``outputs``.

    Built with :meth:`add`, which infers and checks every shape. ``outputs`` has the name of each
    output, in the model's order, and the node whose value it is.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, operator: Operator, inputs: Sequence[str] = ()) -> str:
        """Append a node and return its name; the last one added is the only output.

        Raises
        ------
        ValueError
            If the name is taken, an input is not in the graph yet, shapes do not fit, a
            parameter is not finite, or ids meet an operator for numbers or the other way round.
        """
        require(name not in self.nodes, f"node name {name!r} is taken.")
        for source in inputs:
            require(
                source in self.nodes,
                f"node {name!r} reads {source!r}, which is not in the graph yet.",
            )
        least, most = ARITY.get(type(operator), (1, 1))
        require(
            least <= len(inputs) <= most,
            f"node {name!r} ({type(operator).__name__}) cannot take {len(inputs)} inputs.",
        )
        try:
            shape = operator.infer_shape(*(self.nodes[s].shape for s in inputs))
        except ValueError as error:
            raise ValueError(f"node {name!r} ({type(operator).__name__}): {error}") from None
        for field_name, value in vars(operator).items():
            require(
                not isinstance(value, np.ndarray) or bool(np.isfinite(value).all()),
                f"node {name!r} ({type(operator).__name__}): {field_name} must be finite.",
            )
        require(all(n > 0 for n in shape), f"node {name!r} has an empty shape {shape}.")
        require(
            math.prod(shape) <= MOST_VALUES,
            f"node {name!r} has {math.prod(shape)} values; a node has at most {MOST_VALUES}.",
        )
        ids = self._holds_ids(name, operator, inputs)
        constant = not isinstance(operator, Input) and all(
            isinstance(operator, Mask) or self.nodes[source].constant for source in inputs
        )
        self.nodes[name] = Node(name, operator, tuple(inputs), shape, ids, constant)
        self.outputs = {name: name}
        return name

    def _holds_ids(self, name: str, operator: Operator, inputs: Sequence[str]) -> bool:
        if isinstance(operator, Input):
            return operator.content == "ids"
        reads = [self.nodes[source].ids for source in inputs]
        where = f"node {name!r} ({type(operator).__name__})"
        if isinstance(operator, Embedding | Mask):
            # Positions may be counted from a mask, but not computed from a signal.
            counted = isinstance(operator, Embedding) and self.nodes[inputs[0]].constant
            require(reads[0] or counted, f"{where} needs ids and reads numbers.")
            return False
        fits = not any(reads) or (all(reads) and isinstance(operator, CARRY_IDS))
        require(fits, f"{where} reads ids, with which only an Embedding or a Mask can compute.")
        return any(reads)

    def vocabularies(self) -> dict[str, int]:
        """For each input of ids how many there are: as many as the smallest table has for them."""
        sources: dict[str, set[str]] = {}
        rows: dict[str, int] = {}
        for node in self:
            if isinstance(node.operator, Embedding | Mask):
                kind = node.operator
                count = len(kind.values if isinstance(kind, Mask) else kind.weight)
                for source in sources.get(node.inputs[0], ()):
                    rows[source] = min(rows[source], count)
            elif node.ids:
                sources[node.name] = set().union(*(sources[name] for name in node.inputs))
                if not node.inputs:
                    sources[node.name], rows[node.name] = {node.name}, MOST_IDS
        return rows

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The Input nodes, in the model's order."""
        return tuple(node for node in self if isinstance(node.operator, Input))

    @property
    def input(self) -> Node:
        """The Input node of a graph that has one; a ValueError lists several."""
        names = [node.name for node in self.inputs]
        require(len(names) == 1, f"the graph must have one input, not {len(names)}: {names}.")
        return self[names[0]]

    @property
    def output(self) -> str:
        """The output's node in a graph that has one output; a ValueError lists several."""
        names = list(self.outputs)
        require(len(names) == 1, f"the graph must have one output, not {len(names)}: {names}.")
        return self.outputs[names[0]]

    def explaining(self, output: str | None = None) -> Graph:
        """Return the graph of one output: what it depends on, and every input.

        Raises
        ------
        ValueError
            If there is no output of that name, or several where none is named.
        """
        names = ", ".join(self.outputs)
        if output is None:
            require(
                len(self.outputs) == 1,
                f"output must name one of the model's outputs, which are {names}.",
            )
            (output,) = self.outputs
        require(output in self.outputs, f"output must be one of {names}, not {output!r}.")
        node = self.outputs[output]
        require(node in self.nodes, f"output {output!r} names {node!r}, which is no node.")
        return Graph(self.nodes, {output: node}).pruned()

    def pruned(self) -> Graph:
        """Return the graph without the nodes that no output depends on; every input stays."""
        needed = set(self.outputs.values())
        for node in reversed(list(self)):
            if node.name in needed:
                needed.update(node.inputs)
        return Graph(
            {
                name: node
                for name, node in self.nodes.items()
                if name in needed or isinstance(node.operator, Input)
            },
            dict(self.outputs),
        )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the graph to a file, as :meth:`relprop.Model.save` does."""
        from relprop.model import Model

        Model(self).save(path, overwrite=overwrite)

    def consumers(self) -> dict[str, list[Node]]:
        """For each node the nodes that read it, once per reading."""
        readers: dict[str, list[Node]] = {name: [] for name in self.nodes}
        for node in self:
            for source in node.inputs:
                readers[source].append(node)
        return readers

    def __repr__(self) -> str:
        inputs = ", ".join(f"{node.name} {node.shape}" for node in self.inputs)
        outputs = ", ".join(f"{key} {self[name].shape}" for key, name in self.outputs.items())
        ends = f", {inputs} -> {outputs}" if self.nodes else ""
        return f"Graph({len(self.nodes)} nodes{ends})"

    def __str__(self) -> str:
        width = max((len(name) for name in self.nodes), default=0)
        lines = []
        for node in self:
            sources = ", ".join(node.inputs)
            lines.append(f"{node.name:<{width}}  {node.type:<18} {node.shape!s:<18} {sources}")
        return "\n".join(lines)
