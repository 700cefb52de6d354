"""An ONNX node that reads the model's input: its arguments, and the Graph that takes its nodes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import onnx

from relprop.frontends.batch_axis import HOME, Place, common
from relprop.frontends.conversion import BATCH_AXIS, Unsupported, unique
from relprop.frontends.masks import are_whole
from relprop.frontends.onnx_constants import as_integers
from relprop.frontends.onnx_steps import Step
from relprop.frontends.onnx_tensors import Tensor
from relprop.graph import MOST_IDS, Array, Constant, Graph, Operator, Shape

Known = tuple[Tensor, ...]
"""A value that does not depend on the input: one array, or one for each of the batch sizes that
the conversion tries, where the size enters; of what is repeated for each sample, :func:`rows`."""

Value = str | Known
"""What an ONNX value became: a Graph node's name where it depends on the input."""


def rows(version: int) -> int:
    """How often a constant is repeated for a batch of the size that is tried as this version."""
    return version + 1


class Call:
    """One ONNX node that reads the input: its settings, and the Graph to add its nodes to.

    ``batches`` are the sizes of the batch axis that the conversion tries, ``values`` and
    ``makers`` hold by name what each ONNX value became and which node made it, ``tensors`` what
    is stored in the file, ``places`` where
    it has the batch, if not first, ``readers`` the nodes that read it; ``outputs`` are the names
    of the model's. The first data has the batch at ``place`` and the result at ``made``, which
    converters may change; ``elsewhere`` is for those of several results that have it elsewhere.
    """

    def __init__(
        self,
        step: Step,
        graph: Graph,
        batches: Sequence[int],
        values: Mapping[str, object],
        tensors: Mapping[str, onnx.TensorProto],
        makers: Mapping[str, Step],
        places: Mapping[str, Place],
        readers: Mapping[str, Sequence[onnx.NodeProto]],
        outputs: Collection[str],
    ) -> None:
        self.step = step
        self.graph = graph
        self.batches = batches
        self.values = values
        self.tensors = tensors
        self.makers = makers
        self.places = places
        self.readers = readers
        self.outputs = outputs
        self.sources = [name for name in step.inputs if isinstance(values.get(name), str)]
        """The ONNX names of all arguments that depend on the input."""
        self.place = self.place_of(self.sources[0]) if self.sources else HOME
        self.made = self.place
        self.elsewhere: dict[str, Place] = {}

    def require(self, condition: bool, reason: str) -> None:
        """Give up with a reason unless a condition holds."""
        if not condition:
            raise Unsupported(reason)

    # --- Data ---

    def is_data(self, position: int) -> bool:
        """Whether an argument is there and depends on the input."""
        return isinstance(self._argument(position), str)

    def data(self, position: int) -> str:
        """The Graph node that an argument is."""
        value = self._argument(position)
        self.require(isinstance(value, str), f"argument {position} does not depend on the input")
        return cast(str, value)

    @property
    def input(self) -> str:
        """The Graph node that is the first argument."""
        return self.data(0)

    @property
    def shape(self) -> Shape:
        """The first argument's shape without the batch axis."""
        return self.graph[self.input].shape

    def place_of(self, name: str) -> Place:
        """Where an ONNX value that depends on the input has the batch."""
        return self.places.get(name, HOME)

    def rank_of(self, name: str) -> int:
        """How many axes it has with that of the batch."""
        sample = self.graph[cast(str, self.values[name])].shape
        return len(sample) + 1 - len(self.place_of(name).merged)

    def require_common_place(self) -> None:
        """Give up unless the batch is where broadcasting brings it together; else it is there."""
        ranks = [self.rank_of(name) for name in self.sources]
        places = [self.place_of(name) for name in self.sources]
        self.made = common(list(zip(places, ranks)), max(ranks))

    @property
    def full_shapes(self) -> list[Shape]:
        """The first argument's shape with the batch axis, for each size of the batch."""
        return [self.place.full(self.shape, batch) for batch in self.batches]

    def axis(self, dim: int, rank: int | None = None, place: Place | None = None) -> int:
        """An ONNX axis without the batch, by default of the first argument.

        ``rank`` counts a value's axes with that of the batch, which it has at ``place``.
        """
        rank = self.rank_of(self.sources[0]) if rank is None else rank
        if not -rank <= dim < rank:
            raise ValueError(f"axis {dim} does not fit a value of {rank} axes")
        return (self.place if place is None else place).axis_of(dim, rank)

    def emit(self, operator: Operator, *inputs: str) -> str:
        """Add a node that reads ``inputs``, by default the first argument."""
        return self.graph.add(unique(self.graph, self.step.name), operator, inputs or (self.input,))

    def chain(self, operators: Iterable[Operator], name: str) -> str:
        """Add nodes one after the other, of which the first reads the node ``name``."""
        for operator in operators:
            name = self.emit(operator, name)
        return name

    # --- Constants ---

    def _argument(self, position: int) -> object:
        names = self.step.inputs
        return self.values[names[position]] if position < len(names) and names[position] else None

    def given(self, position: int) -> bool:
        """Whether an argument is there."""
        return self._argument(position) is not None

    def versions(self, position: int) -> Known:
        """An argument that must be known, for each batch size that is tried."""
        value = self._argument(position)
        self.require(not isinstance(value, str), f"argument {position} is computed from the input")
        if value is None:
            raise ValueError(f"argument {position} is missing")
        known = cast(Known, value)
        return known if len(known) == len(self.batches) else known * len(self.batches)

    def known(self, position: int) -> Tensor:
        """An argument that must be known and not depend on the batch size."""
        self.versions(position)
        arrays = cast(Known, self._argument(position))
        self.require(len(arrays) == 1, f"argument {position} depends on the size of the batch")
        return arrays[0]

    def repeated(self, position: int, rank: int) -> Tensor:
        """An argument that must be known, for one sample where all of them have the same.

        ``rank`` counts the axes with that of the batch.
        """
        versions = self.versions(position)
        first = versions[0]
        if first.ndim == rank and all(
            values.shape == (rows(version), *first.shape[1:]) and (values == first).all()
            for version, values in enumerate(versions)
        ):
            return first
        return self.known(position)

    def integers(self, position: int, attribute: str) -> tuple[int, ...] | None:
        """Integers that are an argument, an attribute, or not there."""
        if self.given(position):
            return tuple(as_integers(self.known(position)))
        return self.step.integers(attribute)

    def number(self, position: int, attribute: str, default: float) -> float:
        """A number that is an argument, an attribute, or not there."""
        if not self.given(position):
            return self.step.number(attribute, default)
        value = self.known(position)
        if value.size != 1 or value.ndim > 1:
            raise ValueError(f"{attribute} must be one number, not of shape {value.shape}")
        return float(value.reshape(()))

    def array(self, position: int, what: str, axes: int) -> Array:
        """An argument as a parameter with so many axes."""
        values = self.to_array(self.known(position), what)
        if values.ndim != axes:
            raise ValueError(f"{what} must have {axes} axes, not {values.ndim}")
        return values

    def to_array(self, values: Tensor, what: str) -> Array:
        """A float32 array of the Graph's own."""
        if values.dtype.kind != "f":
            raise ValueError(f"{what} is of type {values.dtype}")
        self.step.storage.spend(4 * values.size)
        with np.errstate(over="ignore"):
            array = np.array(values, np.float32, order="C")
        if not np.isfinite(array).all():
            raise ValueError(f"{what} holds NaN or infinite values")
        return array

    def operand(self, position: int, rank: int, change: Callable[[Tensor], Tensor]) -> str:
        """An argument as a node, what it is already or a new Constant that ``change`` makes.

        ``rank`` counts the axes of the result with the batch.
        """
        if self.is_data(position):
            return self.data(position)
        values = self.of_a_sample(self.repeated(position, rank), rank)
        what = self.step.inputs[position]
        if values.dtype.kind in "iu" and self._counts():
            self.require(bool((abs(values) <= MOST_IDS).all()), f"{what} has larger numbers")
            values = values.astype(np.float32)
        with np.errstate(all="ignore"):
            return self.constant(what, self.to_array(change(values), what))

    def _counts(self) -> bool:
        """Whether all data are whole numbers that are counted from masks."""
        return all(are_whole(self.graph, str(self.values[name])) for name in self.sources)

    def of_a_sample(self, values: Tensor, rank: int) -> Tensor:
        """A constant that goes with the result, without the batch axis where it reaches so far."""
        self.require(values.ndim <= rank, BATCH_AXIS)
        at = values.ndim - rank + self.made.axis
        if at < 0:
            return values
        own = "a constant has a value of its own for each sample"
        self.require(values.shape[at] == 1, own)
        merged = (1,) * len(self.made.merged)
        return values.reshape(*values.shape[:at], *merged, *values.shape[at + 1 :])

    def constant(self, argument: str, value: Any) -> str:
        """A Constant, by the name of an initialiser or of an argument of this node."""
        name = argument if argument in self.values else f"{self.step.name}.{argument}"
        return self.graph.add(unique(self.graph, name), Constant(np.asarray(value, np.float32)))

    def operands(self, *changes: Callable[[Tensor], Tensor]) -> list[str]:
        """All arguments as nodes that broadcast against each other; constants are changed."""
        count = len(self.step.inputs)
        rank = max(map(self.rank_of, self.sources))
        same = [lambda values: values] * (count - len(changes))
        return [self.operand(i, rank, change) for i, change in enumerate([*changes, *same])]


Converter = Callable[[Call], Value | list[str]]
"""Adds nodes to a call's Graph and returns the name of the last, or what is known of the result."""
