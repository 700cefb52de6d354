"""Operators that exporters write as several: GELU, SiLU, hard swish and LRN.

Each pattern is recognised at its last node, looking back over the nodes that made its inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

import numpy as np

from relprop.frontends.onnx_call import Call
from relprop.frontends.onnx_operators import has_common_slope
from relprop.frontends.onnx_steps import Step
from relprop.graph import (
    Activation,
    AvgPool,
    Function,
    LocalResponseNorm,
    Mul,
    Node,
    Operator,
    Pad,
    Reshape,
)


def whole_operator(call: Call) -> str | None:
    """The Graph node for all that this ONNX node completes, None where it is just itself."""
    match = _MATCHERS[call.step.type](call) if call.step.type in _MATCHERS else None
    if match is None:
        return None
    operator, source = match
    return call.emit(operator, cast(str, call.values[source]))


_Match = tuple[Operator, str] | None
"""The operator and the ONNX name of what it reads."""


def _activation(call: Call) -> _Match:
    """A product: x * sigmoid(x), hard or not, or x / 2 * (1 + something of x) in any order."""
    for gate, source in _orders(call.step):
        maker = _maker(call, gate, "Sigmoid")
        if maker and maker.inputs[0] == source and _is_data(call, source):
            return Activation("silu"), source
        maker = _maker(call, gate, "HardSigmoid")
        if maker and maker.inputs[0] == source and has_common_slope(maker):
            return Activation("hard_swish"), source
    for factor, gate, source in _products(call):
        function = _gelu(call, gate, source)
        if function and _near(factor, 0.5) and _is_data(call, source):
            return Activation(function), source
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
            return LocalResponseNorm(size, alpha, beta, k), source
    return None


def _window_of_squares(call: Call, mean: str, source: str) -> int | None:
    """How many channels the mean of squares goes over, None where it is not that.

    As torch writes it: squares as (1, channels, height, width), padded in front and behind,
    averaged by a pool over volumes, and as images again.
    """
    image, value = call.graph[cast(str, call.values[source])].shape, call.values.get(mean)
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
    count = 2 if kind in ("Add", "Mul", "Pow") else 1
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


def _is_data(call: Call, name: str) -> bool:
    return isinstance(call.values.get(name), str)


def _near(value: float, wanted: float) -> bool:
    return bool(np.isclose(value, wanted, rtol=1e-3, atol=0.0))  # half precision has 11 bits


_MATCHERS = {"Mul": _activation, "Div": _local_response_norm}
