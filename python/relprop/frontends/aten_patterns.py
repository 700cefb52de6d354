"""Operators that torch's tracing, or users, write as several: norms and GELU.

Each pattern is recognised at its last node and becomes one call, which ``aten.py`` converts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

from relprop.frontends.aten_call import bind, operator_name


def restore(traced: fx.Graph) -> None:
    """Put together what was split."""
    for node in list(traced.nodes):
        for whole, match in _PATTERNS:
            settings = match(node)
            if settings is not None:
                with traced.inserting_before(node):
                    call = traced.call_function(whole, (), settings)
                call.meta = dict(node.meta)
                node.replace_all_uses_with(call)
                break


def _undo(node: Any, name: str, *defaults: Any) -> tuple[Any, ...]:
    """The arguments of the operator called ``name``; the last ones must be ``defaults``."""
    if not isinstance(node, fx.Node) or operator_name(node.target) != name:
        raise LookupError
    arguments = tuple(bind(node).values())
    count = len(arguments) - len(defaults)
    if arguments[count:] != defaults:
        raise LookupError
    return arguments[:count]


def _match_local_response_norm(node: fx.Node) -> dict[str, Any] | None:
    """Settings of ``x / (k + alpha * mean of squares over channels) ** beta``, if it is one."""
    try:
        signal, denominator = _undo(node, "div")
        scaled_sum, beta = _undo(denominator, "pow")
        scaled, k = _undo(scaled_sum, "add", 1)
        image, alpha = _undo(scaled, "mul")
        volume = _undo(_undo(image, "view")[0], "squeeze")[0]
        padded, kernel, stride = _undo(volume, "avg_pool3d", [0, 0, 0], False, True, None)
        squares, pads = _undo(padded, "pad", "constant", None)
        factors = _undo(_undo(squares, "view")[0], "mul")
        shape = signal.meta["val"].shape
        batch, channels, rows, *places = shape
    except (LookupError, ValueError):  # another operator, or other numbers of arguments or axes
        return None
    size = kernel[0]
    fits = (
        factors == (signal, signal)
        and squares.meta["val"].shape == (batch, 1, channels, rows, math.prod(places))
        and image.meta["val"].shape == shape
        and list(kernel) == [size, 1, 1]
        and list(stride) == [1, 1, 1]
        and list(pads) == [0, 0, 0, 0, size // 2, (size - 1) // 2]
        and all(isinstance(number, (int, float)) for number in (alpha, beta, k))
    )
    return {"input": signal, "size": size, "alpha": alpha, "beta": beta, "k": k} if fits else None


def norm_over(
    x: torch.Tensor, dims: list[int], eps: float, centred: bool, scale: float = 1.0
) -> torch.Tensor:
    """A norm without weights over some axes: layer norm, or RMS norm where not centred."""
    if centred:
        x = x - x.mean(dims, keepdim=True)
    return x * torch.rsqrt(x.square().mean(dims, keepdim=True) + eps) * scale


def _match_norm(node: fx.Node) -> dict[str, Any] | None:
    """Settings of ``x / sqrt(mean(x ** 2) + eps)``, or of that with ``y - mean(y)`` for x."""
    for signal, total in _over_roots(node):
        try:
            moment, epsilon = _undo(total, "add", 1)
        except LookupError:
            continue
        if not isinstance(epsilon, (int, float)):
            continue
        squares = _mean_of_squares(moment)
        deviation = _deviation(signal)
        variance = _variance(moment) or (squares and _deviation(squares[0]))
        if deviation and deviation == variance and (not squares or squares[1] == deviation[1]):
            source, dims = deviation
            return {"x": source, "dims": list(dims), "eps": epsilon, "centred": True}
        if squares and squares[0] is signal:
            return {"x": signal, "dims": list(squares[1]), "eps": epsilon, "centred": False}
    return None


_LEAST_LENGTH = 1e-7
"""The largest bound of a length that cannot matter, unless values are as small themselves."""


def _match_unit_length(node: fx.Node) -> dict[str, Any] | None:
    """Settings of ``x / max(length of x, eps)``, ``torch.nn.functional.normalize``."""
    try:
        signal, length = _undo(node, "div")
        if operator_name(length.target) in ("expand", "expand_as"):
            length = length.args[0]
        bound = 0.0
        if operator_name(length.target) == "clamp_min":
            length, bound = _undo(length, "clamp_min")
        source, order, dims, keepdim = _undo(length, "linalg_vector_norm", None)
    except (LookupError, AttributeError, ValueError):  # a number, or other numbers of arguments
        return None
    small = isinstance(bound, (int, float)) and 0 <= bound <= _LEAST_LENGTH
    if source is not signal or order != 2 or not dims or not keepdim or not small:
        return None
    shape = signal.meta["val"].shape
    sizes = [shape[dim] for dim in dims]
    if not all(isinstance(size, int) for size in sizes):
        return None  # a length over the batch
    count = math.prod(sizes)
    return {
        "x": signal,
        "dims": list(dims),
        "eps": bound**2 / count,
        "centred": False,
        "scale": count**-0.5,
    }


_Source = tuple[fx.Node, tuple[int, ...]] | None
"""What a statistic is of, and over which axes."""


def _over_roots(node: fx.Node) -> Iterator[tuple[Any, Any]]:
    """Each x and s for which a node is ``x / sqrt(s)``."""
    name = operator_name(node.target)
    first, second = (*node.args[:2], None, None)[:2]
    orders = {"mul": ((first, second), (second, first)), "div": ((first, second),)}
    for signal, root in orders.get(name, ()):
        try:
            (total,) = _undo(root, "rsqrt" if name == "mul" else "sqrt")
        except LookupError:
            continue
        yield signal, total


def _over(source: Any, dims: Any) -> _Source:
    rank = source.meta["val"].ndim
    return (source, tuple(sorted(dim % rank for dim in dims))) if dims else None


def _deviation(node: Any) -> _Source:
    """Of ``x - mean(x)``."""
    try:
        source, mean = _undo(node, "sub", 1)
        of, dims = _undo(mean, "mean", True, None)
    except LookupError:
        return None
    return _over(source, dims) if of is source else None


def _variance(node: Any) -> _Source:
    """Of torch's own variance, divided by the number of values."""
    try:
        source, dims, *settings = _undo(node, "var")
    except LookupError:
        return None
    return _over(source, dims) if settings in ([False, True], [0, True]) else None


def _mean_of_squares(node: Any) -> _Source:
    try:
        squares, dims = _undo(node, "mean", True, None)
    except LookupError:
        return None
    for name, rest in (("square", ()), ("pow", (2,)), ("mul", None)):
        try:
            source, *factor = _undo(squares, name, *(rest or ()))
        except LookupError:
            continue
        if rest is not None or factor == [source]:
            return _over(source, dims)
    return None


_ELEMENTWISE = {"mul", "add", "sub", "div", "pow", "square", "neg", "tanh", "erf", "rsub"}
_MOST_STEPS = 32  # of an activation that is spelled out, and what comes before it

_GRID = torch.linspace(-8.0, 8.0, 257, dtype=torch.float64)
_GELUS = {how: F.gelu(_GRID, approximate=how) for how in ("none", "tanh")}


def _match_gelu(node: fx.Node) -> dict[str, Any] | None:
    """GELU, however it is spelled: what gives its values on a grid."""
    if operator_name(node.target) not in ("mul", "div"):
        return None
    for source, steps in _expressions(node):
        values = _on_grid(node, source, steps)
        for how, expected in _GELUS.items():
            if values is not None and torch.allclose(values, expected, rtol=1e-6, atol=1e-6):
                return {"input": source, "approximate": how}
    return None


def _expressions(node: fx.Node) -> Iterator[tuple[fx.Node, list[fx.Node]]]:
    """Each value of which a node is an elementwise function, and the steps to it in order."""
    cone: list[fx.Node] = []
    open_nodes = [node]
    while open_nodes and len(cone) <= _MOST_STEPS:
        step = open_nodes.pop(0)  # the nearest first
        if step not in cone and operator_name(step.target) in _ELEMENTWISE:
            cone.append(step)
            open_nodes += step.all_input_nodes
    if not any(operator_name(step.target) in ("tanh", "erf") for step in cone):
        return
    for source in dict.fromkeys(n for step in cone for n in step.all_input_nodes):
        steps: list[fx.Node] = []
        if _steps_to(node, source, cone, steps):
            yield source, steps


def _steps_to(node: fx.Node, source: fx.Node, cone: list[fx.Node], steps: list[fx.Node]) -> bool:
    """Collect what lies between a source and a node, and say whether nothing else goes in."""
    if node is source or node in steps:
        return True
    if node not in cone or not node.all_input_nodes:
        return False
    if not all(_steps_to(before, source, cone, steps) for before in node.all_input_nodes):
        return False
    steps.append(node)
    return True


def _on_grid(node: fx.Node, source: fx.Node, steps: list[fx.Node]) -> torch.Tensor | None:
    values: dict[fx.Node, Any] = {source: _GRID}
    for step in steps:
        args, kwargs = fx.node.map_arg((step.args, step.kwargs), values.__getitem__)
        values[step] = step.target(*args, **kwargs)
    return values.get(node)


_PATTERNS: list[tuple[Callable[..., Any], Callable[[fx.Node], dict[str, Any] | None]]] = [
    (F.local_response_norm, _match_local_response_norm),
    (norm_over, _match_norm),
    (norm_over, _match_unit_length),
    (F.gelu, _match_gelu),
]
