"""What front ends share: tables, free names, clips, maxima, pads, ways to give up on a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from relprop.errors import UnsupportedOperatorError
from relprop.graph import (
    Activation,
    Clip,
    Concat,
    Graph,
    Identity,
    Input,
    Maximum,
    MaxPool,
    Mul,
    Operator,
    Pad,
    Pair,
    Permute,
    Reshape,
    Shape,
    Slice,
)

Shapes = Shape | Sequence[Shape] | Mapping[str, Shape]
"""Of one sample without the batch axis: of the one input, or of each by order or by name."""

F = TypeVar("F", bound=Callable[..., Any])

SELU = (1.6732632423543772, 1.0507009873554805)
"""Alpha and scale of Klambauer et al. 2017."""

BATCH_AXIS = "it touches the batch axis; samples must be independent"


class Unsupported(Exception):
    """Why one operator of a model cannot be represented."""


class Builder(Protocol):
    """What a front end's call can do: add nodes to a Graph."""

    graph: Graph

    def emit(self, operator: Operator, *inputs: str) -> str:
        """Add a node and return its name."""
        ...

    def chain(self, operators: Iterable[Operator], name: str) -> str:
        """Add nodes one after the other, of which the first reads the node ``name``."""
        ...

    def constant(self, argument: str, value: Any) -> str:
        """Add a Constant, named like an argument of the call."""
        ...


def registering(table: dict[str, F]) -> Callable[..., Callable[[F], F]]:
    """Return a decorator that enters a function in a table under each of the names it is given."""

    def under(*names: str) -> Callable[[F], F]:
        def register(function: F) -> F:
            table.update(dict.fromkeys(names, function))
            return function

        return register

    return under


def unique(graph: Graph, name: str) -> str:
    """The name itself, or with "#2", "#3" and so on where it is taken."""
    if name not in graph.nodes:
        return name
    taken, free = 1, 2
    while f"{name}#{free}" in graph.nodes:
        taken, free = free, 2 * free
    while free - taken > 1:  # one by one, a hostile model could make this take forever
        middle = (taken + free) // 2
        if f"{name}#{middle}" in graph.nodes:
            taken = middle
        else:
            free = middle
    return f"{name}#{free}"


def clipping(low: float, high: float) -> Operator:
    """What cuts values off at two bounds, by its own name where it has one."""
    most = float(np.finfo(np.float32).max)
    low, high = (-math.inf if low <= -most else low), (math.inf if high >= most else high)
    if not low <= high or (math.isinf(low) and low == high):
        raise Unsupported(f"no number lies between its bounds {low:g} and {high:g}")
    if (low, high) == (-math.inf, math.inf):
        return Identity()
    named = {(0.0, math.inf): Activation("relu"), (0.0, 6.0): Activation("relu6")}
    return named.get((low, high)) or Clip(low, high)


def power(exponent: float) -> Operator:
    """What raises values to a power."""
    if exponent == 0 or not math.isfinite(exponent):
        raise Unsupported(f"an exponent of {exponent} is not supported")
    return Identity() if exponent == 1 else Activation("power", float(exponent))


def scaled(call: Builder, name: str, factor: float) -> str:
    """A node times a number; itself for 1."""
    return name if factor == 1 else call.emit(Mul(), name, call.constant("scale", factor))


def absolute(call: Builder, name: str) -> str:
    """Values without their signs: the larger of each and its negative."""
    return call.emit(Maximum(), name, scaled(call, name, -1.0))


def elu(call: Builder, name: str, alpha: float, scale: float = 1.0, steepness: float = 1.0) -> str:
    """``scale`` times x where that is positive, else times ``alpha (exp(steepness x) - 1)``."""
    if not (0 < steepness < math.inf and math.isfinite(alpha) and math.isfinite(scale)):
        raise Unsupported(
            f"alpha, scale and input scale must be finite, the last above 0, not {alpha}, {scale} "
            f"and {steepness}"
        )
    made = call.emit(Activation("elu", alpha * steepness), scaled(call, name, steepness))
    return scaled(call, made, scale / steepness)


def celu(call: Builder, name: str, alpha: float) -> str:
    """Values that are positive as they are, others as ``alpha (exp(x / alpha) - 1)``."""
    if not alpha > 0:
        raise Unsupported(f"alpha must be above 0, not {alpha}")
    return elu(call, name, alpha, steepness=1 / alpha)


def maximum_over(shape: Shape, axes: Sequence[int], keepdims: bool) -> list[Operator]:
    """What takes the maximum over axes, one operator after the other: a pool with one window."""
    rest = [axis for axis in range(len(shape)) if axis not in axes]
    window = math.prod(shape[axis] for axis in axes)
    kept = [1 if axis in axes else n for axis, n in enumerate(shape) if keepdims or axis in rest]
    return [
        Permute((*rest, *sorted(axes))),
        Reshape((math.prod(shape) // window, window)),
        MaxPool((window,), (window,)),
        Reshape(tuple(kept)),
    ]


MOST_RUNS = 1000
"""So many slices make up what is gathered along an axis, at most."""


def gathered(call: Builder, name: str, axis: int, places: NDArray[np.integer]) -> str:
    """The entries of a node's axis at places that are known, which may have axes of their own."""
    shape = call.graph[name].shape
    pieces = [call.emit(piece, name) for piece in _runs(axis, places.ravel().tolist())]
    name = call.emit(Concat(axis), *pieces) if len(pieces) > 1 else pieces[0]
    if places.ndim == 1:
        return name
    return call.emit(Reshape((*shape[:axis], *places.shape, *shape[axis + 1 :])), name)


def _runs(axis: int, positions: Sequence[int]) -> list[Slice]:
    """Slices that, side by side, are an axis's entries at some positions, in that order."""
    slices = []
    at = 0
    while at < len(positions):
        end = at + 1
        step = positions[end] - positions[at] if end < len(positions) else 1
        if step > 0:
            while end < len(positions) and positions[end] - positions[end - 1] == step:
                end += 1
        slices.append(Slice(axis, positions[at], positions[end - 1] + 1, max(step, 1)))
        at = end
    if not 0 < len(slices) <= MOST_RUNS:
        raise Unsupported(f"it gathers {len(slices)} runs of entries; {MOST_RUNS} are supported")
    return slices


def padding(shape: Shape, pads: Sequence[Pair], value: float) -> list[Operator]:
    """What pads with a value, one operator after the other; a negative pad cuts."""
    cuts: list[Operator] = [
        Slice(axis, max(-before, 0), shape[axis] + min(after, 0))
        for axis, (before, after) in enumerate(pads)
        if before < 0 or after < 0
    ]
    return [*cuts, Pad(tuple((max(before, 0), max(after, 0)) for before, after in pads), value)]


def shapes_of(given: Shapes | None, names: Sequence[str]) -> dict[str, Shape | None]:
    """The shape that each input is given, None where it is given none.

    Raises
    ------
    ValueError
        If shapes are given for other inputs.
    """
    if given is None:
        return dict.fromkeys(names)
    if isinstance(given, Mapping):
        if set(given) != set(names):
            raise ValueError(
                f"example must have the inputs {', '.join(names)}, not {', '.join(given)}."
            )
        return {name: given[name] for name in names}
    shapes: Any = [given] if all(isinstance(size, int) for size in given) else given
    if len(shapes) != len(names):
        raise ValueError(
            f"example must be a dictionary or a tuple of the {len(names)} inputs "
            f"{', '.join(names)}, not {given}."
        )
    return dict(zip(names, shapes))


def check_outputs(graph: Graph, outputs: Mapping[str, Any]) -> dict[str, str]:
    """What a model's outputs became, all of them nodes that depend on an input.

    Raises
    ------
    ValueError
        If one is no node of the graph, the input itself, or computed from masks alone.
    """
    for name, value in outputs.items():
        if not isinstance(value, str):
            raise ValueError(f"the output {name!r} does not depend on any input.")
        if isinstance(graph[value].operator, Input):
            raise ValueError(f"the output {name!r} is the input {value!r} itself.")
        if graph[value].constant:
            raise ValueError(f"the output {name!r} is computed from masks alone.")
    return dict(outputs)


def refusal(problems: Iterable[str]) -> UnsupportedOperatorError:
    """The error that lists every operator that was given up on."""
    return UnsupportedOperatorError(
        "the model holds operators that relprop cannot represent:\n  " + "\n  ".join(problems)
    )
