"""Operators that exporters write as several: GELU, SiLU, hard swish, LRN, layer and RMS norm.

Each pattern is recognised at its last node, looking back over the nodes that made its inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar, cast

import numpy as np

from relprop.frontends.onnx_call import Call
from relprop.frontends.onnx_constants import as_integers
from relprop.frontends.onnx_operators import has_common_slope
from relprop.frontends.onnx_steps import Step
from relprop.frontends.onnx_tensors import Tensor
from relprop.graph import (
    Activation,
    Array,
    AvgPool,
    Function,
    GroupNorm,
    LayerNorm,
    LocalResponseNorm,
    Mul,
    Node,
    Operator,
    Pad,
    Permute,
    Reshape,
)


def whole_operator(call: Call) -> str | None:
    """The Graph node for all that this ONNX node completes, None where it is just itself."""
    for matcher in _MATCHERS.get(call.step.type, ()):
        match = matcher(call)
        if match is not None:
            operators, source = match
            operators = operators if isinstance(operators, list) else [operators]
            return call.chain(operators, source)
    return None


_Match = tuple[Operator | list[Operator], str] | None
"""The operator, or several one after the other, and the Graph node that it reads."""


def _activation(call: Call) -> _Match:
    """A product: x * sigmoid(x), hard or not, or x / 2 * (1 + something of x) in any order."""
    for gate, source in _orders(call.step):
        maker = _maker(call, gate, "Sigmoid")
        if maker and maker.inputs[0] == source and _is_data(call, source):
            return Activation("silu"), _node(call, source)
        maker = _maker(call, gate, "HardSigmoid")
        if maker and maker.inputs[0] == source and has_common_slope(maker):
            return Activation("hard_swish"), _node(call, source)
    for factor, gate, source in _products(call):
        function = _gelu(call, gate, source)
        if function and _near(factor, 0.5) and _is_data(call, source):
            return Activation(function), _node(call, source)
    return None


def _products(call: Call) -> Iterator[tuple[float, str, str]]:
    """Two values that the last Muls multiply, and the scalar with which they do.

    The second may itself be a multiple of another value, or that one: each is tried.
    """
    factor, name = _scale(call, call.step.outputs[0])
    for left, right in _orders(_maker(call, name, "Mul")):
        first, gate = _scale(call, left)
        for second, source in _multiples(call, right):
            yield factor * first * second, gate, source


_DEEPEST = 4
"""How many factors in a row are looked through."""


def _multiples(call: Call, name: str) -> Iterator[tuple[float, str]]:
    """What a value is a multiple of, and how often: itself, then without its last factor, ..."""
    factor = 1.0
    yield factor, name
    for _ in range(_DEEPEST):
        maker = call.makers.get(name)
        if maker is None or maker.type not in ("Mul", "Div"):
            return
        for number, rest in _orders(maker):
            value = _number(call, number)
            if value and (maker.type == "Mul" or number == maker.inputs[1]):
                factor, name = (factor * value if maker.type == "Mul" else factor / value), rest
                break
        else:
            return
        yield factor, name


def _scale(call: Call, name: str, source: str = "") -> tuple[float, str]:
    """The last of what a value is a multiple of, or ``source`` where it comes before."""
    multiple = 1.0, name
    for multiple in _multiples(call, name):
        if multiple[1] == source:
            break
    return multiple


def _gelu(call: Call, gate: str, source: str) -> Function | None:
    """Which GELU it is whose gate 1 + erf(x / sqrt 2), or 1 + tanh(...), is given."""
    sigmoidal = _other_than(call, _maker(call, gate, "Add"), 1.0)
    for kind in ("Erf", "Tanh"):
        maker = _maker(call, sigmoidal, kind)
        if maker is None:
            continue
        factor, inner = _scale(call, maker.inputs[0], source)
        if kind == "Erf" and inner == source and _near(factor, math.sqrt(0.5)):
            return "gelu"
        if kind == "Tanh" and _near(factor, math.sqrt(2 / math.pi)):
            total = _maker(call, inner, "Add")
            for cube, linear in _orders(total):
                weight, power = _scale(call, cube)
                cubed = linear == source and _is_cube(call, power, source)
                if cubed and _near(weight, 0.044715):
                    return "gelu_tanh"
    return None


def _is_cube(call: Call, name: str, source: str) -> bool:
    power, product = _maker(call, name, "Pow"), _maker(call, name, "Mul")
    if power is not None:
        return power.inputs[0] == source and _number(call, power.inputs[1]) == 3
    return any(
        factor == source and _maker_inputs(call, square, "Mul") == (source, source)
        for square, factor in _orders(product)
    )


def _local_response_norm(call: Call) -> _Match:
    """A quotient: x / (k + alpha * mean of squares over neighbouring channels) ** beta."""
    if len(call.step.inputs) != 2:
        return None
    source, denominator = call.step.inputs
    power = _maker(call, denominator, "Pow")
    if power is None or not _is_data(call, source):
        return None
    beta = _number(call, power.inputs[1])
    for number, scaled in _orders(_maker(call, power.inputs[0], "Add")):
        k, (alpha, mean) = _number(call, number), _scale(call, scaled)
        size = _window_of_squares(call, mean, source)
        if k is not None and beta is not None and size:
            return LocalResponseNorm(size, alpha, beta, k), _node(call, source)
    return None


def _window_of_squares(call: Call, mean: str, source: str) -> int | None:
    """How many channels the mean of squares goes over, None where it is not that.

    As torch writes it: squares as (1, channels, height, width), padded in front and behind,
    averaged by a pool over volumes, and as images again.
    """
    image, value = call.graph[_node(call, source)].shape, call.values.get(mean)
    if not isinstance(value, str) or len(image) < 3 or call.graph[value].shape != image:
        return None
    volume = (1, *image[:2], math.prod(image[2:]))
    pool = _before_reshapes(call, value)
    if not isinstance(pool.operator, AvgPool) or pool.shape != volume:
        return None
    size, pad = pool.operator.kernel[0], call.graph[pool.inputs[0]]
    if not isinstance(pad.operator, Pad):
        return None
    pads = ((0, 0), (size // 2, (size - 1) // 2), (0, 0), (0, 0))
    squares = _before_reshapes(call, pad.inputs[0])
    same = (
        pool.operator.kernel == (size, 1, 1)
        and pool.operator.stride == (1, 1, 1)
        and not any(map(any, pool.operator.padding))
        and pad.operator.pads == pads
        and pad.operator.value == 0
        and call.graph[pad.inputs[0]].shape == volume
        and isinstance(squares.operator, Mul)
        and squares.shape == image
        and squares.inputs == (call.values[source],) * 2
    )
    return size if same else None


def _before_reshapes(call: Call, name: str) -> Node:
    node = call.graph[name]
    while isinstance(node.operator, Reshape):
        node = call.graph[node.inputs[0]]
    return node


_Norm = TypeVar("_Norm", LayerNorm, GroupNorm)


# --- Norms -------------------------------------------------------------------------------------


def _norm(call: Call) -> _Match:
    """A quotient, or product: x / sqrt(mean(x ** 2) + epsilon), of x or of y - mean(y)."""
    for signal, root in _over_roots(call):
        for number, moment in _orders(_maker(call, _root_of(call, root), "Add")):
            epsilon, (squares, axes) = _number(call, number), _mean(call, moment)
            base = _square_of(call, squares)
            if epsilon is None or base is None:
                continue
            source = _centre(call, base, axes)
            centred = source is not None
            same = signal == base or (centred and _centre(call, signal, axes) == source)
            source = source or base
            if same and _is_data(call, source):
                operators = _over(call, source, _dims(call, source, axes), epsilon, centred)
                return (operators, _node(call, source)) if operators else None
    return None


def _centre(call: Call, name: str, axes: Sequence[int]) -> str | None:
    """Of ``y - mean(y)``, over those axes, y."""
    maker = _maker(call, name, "Sub")
    if maker is None:
        return None
    source, mean = map(str, maker.inputs)
    of, own = _mean(call, mean)
    if of != source or not _is_data(call, source):
        return None
    return source if _dims(call, source, own) == _dims(call, source, axes) else None


def _dims(call: Call, source: str, axes: Sequence[int]) -> list[int]:
    """Axes of a value that depends on the input, none where they do not fit it."""
    rank = call.rank_of(source)
    fits = all(-rank <= axis < rank for axis in axes)
    return sorted({axis % rank for axis in axes}) if fits else []


def _over_roots(call: Call) -> Iterator[tuple[str, str]]:
    """Each x and root that the node divides by each other, spelled in any way."""
    for signal, inverse in _orders(call.step):
        if call.step.type == "Div":
            yield signal, inverse
            return
        maker = _maker(call, inverse, "Reciprocal")
        if maker is not None:
            yield signal, maker.inputs[0]
        maker = _maker(call, inverse, "Div")
        if maker is not None and _number(call, maker.inputs[0]) == 1:
            yield signal, maker.inputs[1]


def _root_of(call: Call, root: str) -> str | None:
    """What a value is the root of."""
    maker = _maker(call, root, "Sqrt")
    return str(maker.inputs[0]) if maker else None


def _mean(call: Call, name: str | None) -> tuple[str | None, Sequence[int]]:
    """What a mean is of, and over which axes; they are kept."""
    maker = call.makers.get(name or "")
    if maker is None or maker.type != "ReduceMean" or not maker.integer("keepdims", 1):
        return None, ()
    axes = maker.integers("axes")
    if len(maker.inputs) > 1:
        known = call.values.get(maker.inputs[1])
        axes = tuple(as_integers(known[0])) if isinstance(known, tuple) else None
    return (str(maker.inputs[0]), axes) if maker.inputs and axes else (None, ())


def _square_of(call: Call, name: str | None) -> str | None:
    """What a value is the square of."""
    power, product = _maker(call, name, "Pow"), _maker(call, name, "Mul")
    if power is not None and _number(call, power.inputs[1]) == 2:
        return str(power.inputs[0])
    if product is not None and product.inputs[0] == product.inputs[1]:
        return str(product.inputs[0])
    return None


def _over(
    call: Call, source: str, dims: Sequence[int], epsilon: float, centred: bool
) -> list[Operator]:
    """A norm without weights over some axes; nothing where the batch is one of them."""
    place, rank = call.place_of(source), call.rank_of(source)
    shape = call.graph[_node(call, source)].shape
    if not dims or place.axis in dims or epsilon < 0:
        return []
    over = [place.axis_of(dim, rank) for dim in dims]
    norm = LayerNorm(np.ones([shape[a] for a in over], np.float32), None, epsilon, centred)
    order = [axis for axis in range(len(shape)) if axis not in over] + over
    if order == list(range(len(shape))):
        return [norm]
    back = tuple(order.index(axis) for axis in range(len(shape)))
    return [Permute(tuple(order)), norm, Permute(back)]


def _parameter_of_norm(call: Call) -> _Match:
    """The weight, or then the bias, of a norm that was put together before."""
    for made, given in _orders(call.step):
        name, maker, known = call.values.get(made), call.makers.get(made), call.values.get(given)
        if not isinstance(name, str) or maker is None or not isinstance(known, tuple):
            continue
        node, values = call.graph[name], known[0]
        if len(known) > 1 or values.dtype.kind != "f":
            continue
        if isinstance(node.operator, LayerNorm) and maker.type in ("Div", "Mul"):
            norm = _with_parameter(call, node.operator, call.to_array(values, given))
            if norm is not None:
                return norm, node.inputs[0]
        groups, source = _group_norm(call, node)
        channels = _per_channel(values, len(node.shape) + 1)
        if groups is not None and maker.type in ("Reshape", "Mul") and channels is not None:
            groups = _with_parameter(call, groups, call.to_array(channels, given))
            if groups is not None:
                return groups, source
    return None


def _with_parameter(call: Call, norm: _Norm, values: Array) -> _Norm | None:
    """A norm with a weight, or behind a sum with a bias, where it had none."""
    if values.shape != norm.weight.shape:
        return None
    if call.step.type == "Add":
        return replace(norm, bias=values) if norm.bias is None or not norm.bias.any() else None
    plain = (norm.weight == 1).all() and (norm.bias is None or not norm.bias.any())
    return replace(norm, weight=values) if plain else None


def _group_norm(call: Call, node: Node) -> tuple[GroupNorm | None, str]:
    """The norm that a node is, also one of groups in the place of channels, and what it reads."""
    if isinstance(node.operator, GroupNorm):
        return node.operator, node.inputs[0]
    if not isinstance(node.operator, Reshape):
        return None, ""
    inner = call.graph[node.inputs[0]]
    norm = inner.operator
    if not isinstance(norm, GroupNorm) or norm.groups != inner.shape[0]:
        return None, ""
    before = call.graph[inner.inputs[0]]
    plain = (norm.weight == 1).all() and not norm.bias.any()
    if not plain or not isinstance(before.operator, Reshape):
        return None, ""
    source = call.graph[before.inputs[0]]
    if source.shape != node.shape or node.shape[0] % norm.groups:
        return None, ""
    ones = np.ones(node.shape[0], np.float32)
    return GroupNorm(norm.groups, ones, np.zeros_like(ones), norm.epsilon), source.name


def _per_channel(values: Tensor, rank: int) -> Tensor | None:
    """Values for each channel, None where they differ along more."""
    full = (1,) * (rank - values.ndim) + values.shape
    return values.reshape(-1) if len(full) == rank and values.size == full[1] else None


# --- Looking back ------------------------------------------------------------------------------


def _number(call: Call, name: str) -> float | None:
    """A known number, None for any other value: one of many axes would add axes to the data."""
    value = call.values.get(name)
    if not isinstance(value, tuple) or len(value) != 1:
        return None
    if value[0].size != 1 or value[0].ndim > 1:
        return None
    return float(value[0].reshape(())) if value[0].dtype.kind in "fiu" else None


def _maker(call: Call, name: str | None, kind: str) -> Step | None:
    """The node that made a value, if it is of one kind and has the inputs of that."""
    maker = call.makers.get(name or "")
    count = 2 if kind in ("Add", "Div", "Mul", "Pow", "Sub") else 1
    fits = maker is not None and maker.type == kind and len(maker.inputs) == count
    return maker if fits else None


def _maker_inputs(call: Call, name: str, kind: str) -> tuple[str, ...]:
    maker = _maker(call, name, kind)
    return maker.inputs if maker is not None else ()


def _orders(step: Step | None) -> Iterator[tuple[str, str]]:
    """The two inputs of a node in both orders, nothing for any other node."""
    if step is not None and len(step.inputs) == 2:
        first, second = step.inputs
        yield first, second
        yield second, first


def _other_than(call: Call, step: Step | None, number: float) -> str | None:
    """The input of a node whose other input is that number."""
    return next((rest for one, rest in _orders(step) if _number(call, one) == number), None)


def _node(call: Call, name: str) -> str:
    """The Graph node of a value that depends on the input."""
    return cast(str, call.values[name])


def _is_data(call: Call, name: str) -> bool:
    return isinstance(call.values.get(name), str)


def _near(value: float, wanted: float) -> bool:
    return bool(np.isclose(value, wanted, rtol=1e-3, atol=0.0))  # half precision has 11 bits


_MATCHERS = {
    "Mul": (_activation, _norm, _parameter_of_norm),
    "Div": (_local_response_norm, _norm),
    "Add": (_parameter_of_norm,),
}
