"""A traced aten operator: what it is called, its arguments, and the Graph that takes its nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import fx

from relprop.frontends.batch_axis import HOME, Place
from relprop.frontends.conversion import Unsupported, unique
from relprop.graph import Array, Constant, Graph, Mul, Operator, Shape

VIEWS = (
    *("view", "view_as", "reshape", "reshape_as", "_unsafe_view"),
    *("flatten", "unflatten", "ravel", "squeeze", "unsqueeze"),
)
"""What keeps all values in their order, and so may merge the batch axis with others."""


def is_data(value: Any) -> bool:
    """Whether a value comes from the input: it is the name of a node then, or a list of such."""
    if isinstance(value, (list, tuple)):
        return any(is_data(v) for v in value)
    return isinstance(value, str)


def operator_name(target: Any) -> str:
    """The operator's key in the table; its overloads share it."""
    if isinstance(target, torch._ops.OpOverload):
        return str(target._schema.name).removeprefix("aten::")
    return getattr(target, "__name__", str(target))


def module_of(node: fx.Node) -> tuple[str, str]:
    """Path and class of the module that called the operator, where torch recorded them."""
    for path, kind in reversed(list(node.meta.get("nn_module_stack", {}).values())):
        if path != "_empty_nn_module_stack_from_metadata_hook":
            kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
            return path.split("@")[0], kind  # "relu@1" is the second call of "relu"
    return "", ""


def where(node: fx.Node) -> str:
    """The module that called the operator, for a message."""
    path, kind = module_of(node)
    return f" (module {path!r}, {kind.rpartition('.')[2]})" if path else ""


def to_array(name: str, tensor: torch.Tensor) -> Array:
    """A tensor as a float32 array of the Graph's own."""
    if tensor.is_complex() or tensor.is_quantized:
        raise Unsupported(f"{name} is of type {tensor.dtype}")
    array = tensor.detach().to(device="cpu", dtype=torch.float32).numpy().copy()
    if not np.isfinite(array).all():
        raise Unsupported(f"{name} holds NaN or infinite values")
    return cast(Array, array)


def bind(node: fx.Node) -> dict[str, Any]:
    """Arguments by name, with the schema's defaults."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return {**dict(zip(("input", "index"), node.args)), **node.kwargs}
    bound = {}
    for position, argument in enumerate(node.target._schema.arguments):
        if position < len(node.args):
            bound[argument.name] = node.args[position]
        else:
            bound[argument.name] = node.kwargs.get(argument.name, argument.default_value)
    return bound


class Call:
    """One traced operator: its arguments by name, and the Graph to add its nodes to.

    ``values`` holds what each traced value became (see :func:`is_data`), ``labels`` the names
    of those that are parameters. The inputs have the batch at ``places``, the first of them at
    ``place`` and the result at ``made``.
    """

    def __init__(
        self,
        node: fx.Node,
        graph: Graph,
        values: Mapping[fx.Node, Any],
        labels: Mapping[fx.Node, str],
        places: Mapping[fx.Node, Place],
        made: Place = HOME,
    ) -> None:
        self.node = node
        self.graph = graph
        self.labels = labels
        self.places = places
        self.made = made
        self.raw = bind(node)
        self.arguments = {
            name: fx.node.map_arg(value, values.__getitem__) for name, value in self.raw.items()
        }
        self.place = next((places[n] for n in node.all_input_nodes if is_data(values[n])), HOME)
        result = node.meta["val"]
        tensor = isinstance(result, torch.Tensor)
        self.shape: Shape = made.sample(tuple(result.shape)) if tensor else ()
        """The result's without the batch axis."""

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    @property
    def name(self) -> str:
        """The module's path for its own operator, "path.operator" for a functional call."""
        path, kind = module_of(self.node)
        own = kind.startswith("torch.nn.modules.") or any(
            self.labels.get(source, "").rpartition(".")[0] == path
            for source in self.node.all_input_nodes
        )
        if path and own:
            return path
        return f"{path}.{operator_name(self.node.target)}".lstrip(".")

    @property
    def input(self) -> str:
        """The Graph node that is the first argument."""
        return self.data(next(iter(self.arguments)))

    @property
    def input_shape(self) -> Shape:
        """Its shape without the batch axis."""
        return self.graph[self.input].shape

    def data(self, name: str) -> str:
        """The Graph node that an argument is."""
        self.require(is_data(self[name]), f"{name} does not depend on the input")
        return cast(str, self[name])

    def optional_parameter(self, name: str) -> Array | None:
        """An argument that must not depend on the input, as an array; None stays None."""
        if self[name] is None:
            return None
        self.require(not is_data(self[name]), f"{name} is computed from the input")
        return to_array(name, self[name])

    def parameter(self, name: str, axes: int | None = None) -> Array:
        """An argument that must be there, with so many axes, and not depend on the input."""
        array = self.optional_parameter(name)
        assert array is not None, name
        wrong = axes is not None and array.ndim != axes
        self.require(not wrong, f"{name} must have {axes} axes, not {array.ndim}")
        return array

    def operand(self, name: str, scale: float = 1.0) -> str:
        """An argument as a node, what it is already or a new Constant, times ``scale``."""
        value = self[name]
        if is_data(value):
            if scale == 1.0:
                return cast(str, value)
            return self.scaled(cast(str, value), name, scale)
        tensor = self.of_a_sample(name, torch.as_tensor(value))
        return self.constant(name, to_array(name, tensor) * np.float32(scale))

    def of_a_sample(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """A constant that goes with the result, without the batch axis where it reaches so far."""
        at = tensor.ndim - self.node.meta["val"].ndim + self.made.axis
        if at < 0:
            return tensor
        merged = self.made.merged
        if tensor.shape[at] == 1:
            merged = (1,) * len(merged)
        else:  # of one sample, repeated in a batch of many
            own = self.made.outer == 1 and tensor.shape[at] == self.made.inner
            self.require(own, f"{name} has a value of its own for each sample")
        return tensor.reshape(*tensor.shape[:at], *merged, *tensor.shape[at + 1 :])

    def scaled(self, node: str, name: str, scale: float) -> str:
        """A node times a number; ``name`` says what of this operator it is."""
        return self.emit(Mul(), node, self.constant(f"{name}.scale", np.float32(scale)))

    def constant(self, argument: str, value: Any) -> str:
        """A Constant, named like the parameter that the argument is, else like the argument."""
        source = self.raw.get(argument)
        label = self.labels.get(source) if isinstance(source, fx.Node) else None
        name = label or f"{module_of(self.node)[0]}.{argument}".lstrip(".")
        return self.graph.add(unique(self.graph, name), Constant(np.asarray(value, np.float32)))

    @property
    def rank(self) -> int:
        """How many axes the first argument has with the batch."""
        return len(self.input_shape) - len(self.place.merged) + 1

    def axis(self, dim: int) -> int:
        """An axis of the first argument without the batch."""
        return self.place.axis_of(dim, self.rank)

    def made_axis(self, dim: int) -> int:
        """An axis of the result without the batch."""
        return self.made.axis_of(dim, self.node.meta["val"].ndim)

    def require(self, condition: bool, reason: str) -> None:
        """Give up with a reason unless a condition holds."""
        if not condition:
            raise Unsupported(reason)

    def require_image(self) -> None:
        """Give up unless the input is a batch of images."""
        self.require(
            len(self.input_shape) == 3,
            f"one sample must be (channels, height, width), not {self.input_shape}",
        )

    def first(self, name: str) -> str | list[str | None]:
        """The node as the result, or as the first of several of which the others are not there."""
        results = self.node.meta["val"]
        return name if isinstance(results, torch.Tensor) else [name, *[None] * (len(results) - 1)]

    def emit(self, operator: Operator, *inputs: str) -> str:
        """Add a node that reads ``inputs``, by default this call's input."""
        return self.graph.add(unique(self.graph, self.name), operator, inputs or (self.input,))

    def chain(self, operators: Iterable[Operator], name: str) -> str:
        """Add nodes one after the other, of which the first reads the node ``name``."""
        for operator in operators:
            name = self.emit(operator, name)
        return name


Converter = Callable[[Call], Any]
"""Adds nodes to a call's Graph and returns the name of the last, or a list where it has several."""
