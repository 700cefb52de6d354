"""One small function per ONNX operator that reads the model's input: what it is in the Graph.

:data:`TABLE` maps operator names to these functions. Each takes a :class:`Call`, adds nodes to
its Graph and returns the name of the last (a list where the operator has several results), or
raises :class:`Unsupported` or ValueError with the reason. Differences between opsets are mostly
whether a setting is an attribute or an input: what is given is read.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from relprop.frontends import (
    masks,
    onnx_attention,
    onnx_channels,
    onnx_conditions,
    onnx_lookups,
    onnx_moves,
    onnx_norms,
    onnx_recurrent,
)
from relprop.frontends.batch_axis import HOME
from relprop.frontends.conversion import (
    BATCH_AXIS,
    SELU,
    absolute,
    celu,
    clipping,
    elu,
    maximum_over,
    power,
    registering,
    scaled,
)
from relprop.frontends.onnx_call import Call, Converter
from relprop.frontends.onnx_steps import Step
from relprop.graph import Activation, AdaptiveAvgPool, Add, Dense, Function, Maximum, Mul
from relprop.graph import Mean as MeanOverAxes

UNALIGNED = ("Einsum", "Gather", "GatherND", "Attention", *onnx_recurrent.TABLE)
"""Operators whose arguments are not broadcast to each other."""

TABLE: dict[str, Converter] = {
    **onnx_moves.TABLE,
    **onnx_attention.TABLE,
    **onnx_channels.TABLE,
    **onnx_conditions.TABLE,
    **onnx_lookups.TABLE,
    **onnx_norms.TABLE,
    **onnx_recurrent.TABLE,
}
_converts = registering(TABLE)

KNOWS_IDS = (
    *("GatherElements", *onnx_lookups.TABLE),
    *(*onnx_moves.TABLE, *onnx_conditions.COMPARISONS),
)
"""Operators that take ids as they are; to all others they are whole numbers."""


@_converts("Gemm")
def _gemm(call: Call) -> str:
    call.require(not call.step.integer("transA", 0), BATCH_AXIS)
    behind = call.rank_of(call.sources[0]) - call.place.axis - 1
    call.require(behind == 1, f"one sample must be a vector, not {call.shape}")
    weight = call.array(1, "weight", 2) * np.float32(call.step.number("alpha", 1.0))
    if not call.step.integer("transB", 0):
        weight = np.ascontiguousarray(weight.T)
    bias = None
    if call.given(2):
        bias = call.to_array(call.known(2), "bias") * np.float32(call.step.number("beta", 1.0))
        full = (1,) * (2 - bias.ndim) + bias.shape
        call.require(full in ((1, 1), (1, len(weight))), f"a bias of shape {bias.shape}")
        bias = np.broadcast_to(bias.reshape(-1), (len(weight),)).copy()
    return call.emit(Dense(weight, bias))


@_converts(
    *("ReduceMean", "ReduceMax", "ReduceMin"),
    *("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"),
)
def _reduce(call: Call) -> str:
    axes = call.integers(1, "axes")
    if not axes:
        changed = call.step.type in ("ReduceL1", "ReduceL2", "ReduceSumSquare")
        nothing = bool(call.step.integer("noop_with_empty_axes", 0)) and not changed
        call.require(nothing, BATCH_AXIS)
        return call.input
    over = tuple(sorted(call.axis(dim) for dim in axes))
    keep = bool(call.step.integer("keepdims", 1))
    if not keep:
        rank, at = call.rank_of(call.sources[0]), call.place.axis
        call.made = replace(call.place, axis=at - sum(dim % rank < at for dim in axes))
    if call.step.type in ("ReduceMax", "ReduceMin"):
        sign = 1.0 if call.step.type == "ReduceMax" else -1.0
        largest = maximum_over(call.shape, over, keep)
        return scaled(call, call.chain(largest, scaled(call, call.input, sign)), sign)
    if call.step.type != "ReduceMean":
        return _sum_over(call, over, keep)
    if call.place == HOME and keep and over == (1, 2) and len(call.shape) == 3:
        return call.emit(AdaptiveAvgPool((1, 1)))  # what torch's global pool is exported as
    return call.emit(MeanOverAxes(over, keep))


def _sum_over(call: Call, axes: tuple[int, ...], keepdims: bool) -> str:
    """A sum over axes, of sizes or squares where they are asked for, or the root of the latter."""
    if call.step.type == "ReduceSum":
        name = call.input
    else:
        name = absolute(call, call.input) if call.step.type == "ReduceL1" else call.emit(power(2))
    if len(axes) == 1 and masks.are_whole(call.graph, name):  # exactly
        (at,), shape = axes, call.shape
        kept = (1,) if keepdims else ()
        return masks.total(call, name, at, (*shape[:at], *kept, *shape[at + 1 :]))
    count = math.prod(call.shape[axis] for axis in axes)
    name = scaled(call, call.emit(MeanOverAxes(axes, keepdims), name), count)
    return call.emit(power(0.5), name) if call.step.type == "ReduceL2" else name


_FUNCTIONS: dict[str, Function] = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "Exp": "exp",
    "HardSwish": "hard_swish",
}


@_converts(*_FUNCTIONS)
def _activation(call: Call) -> str:
    return call.emit(Activation(_FUNCTIONS[call.step.type]))


@_converts("Sqrt")
def _sqrt(call: Call) -> str:
    return call.emit(power(0.5))


@_converts("Reciprocal")
def _reciprocal(call: Call) -> str:
    return call.emit(power(-1))


@_converts("Pow")
def _pow(call: Call) -> str:
    return call.emit(power(call.number(1, "the exponent", 1)), call.data(0))


@_converts("LeakyRelu")
def _leaky_relu(call: Call) -> str:
    return call.emit(Activation("leaky_relu", call.step.number("alpha", 0.01)))


@_converts("Elu")
def _elu(call: Call) -> str:
    return elu(call, call.input, call.step.number("alpha", 1.0))


@_converts("Selu")
def _selu(call: Call) -> str:
    alpha, gamma = SELU
    return elu(call, call.input, call.step.number("alpha", alpha), call.step.number("gamma", gamma))


@_converts("Celu")
def _celu(call: Call) -> str:
    return celu(call, call.input, call.step.number("alpha", 1.0))


@_converts("HardSigmoid")
def _hard_sigmoid(call: Call) -> str:
    call.require(has_common_slope(call.step), "only alpha 1/6 and beta 1/2 are supported")
    return call.emit(Activation("hard_sigmoid"))


def has_common_slope(step: Step) -> bool:
    """Whether a HardSigmoid is the one that torch and MobileNetV3 know."""
    alpha, beta = step.number("alpha", 0.2), step.number("beta", 0.5)
    return abs(alpha - 1 / 6) < 1e-4 and beta == 0.5


@_converts("Gelu")
def _gelu(call: Call) -> str:
    tanh = call.step.text("approximate", "none") == "tanh"
    return call.emit(Activation("gelu_tanh" if tanh else "gelu"))


@_converts("Clip")
def _clip(call: Call) -> str:
    low = call.number(1, "min", -math.inf)
    return call.emit(clipping(low, call.number(2, "max", math.inf)))


@_converts("Max", "Min")
def _maximum(call: Call) -> str:
    least = call.step.type == "Min"
    numbers = []
    branches = []
    axes = 0
    for position in range(len(call.step.inputs)):
        if call.is_data(position):
            branches.append(call.data(position))
            continue
        bound = call.known(position)
        call.require(bound.size == 1, "it has bounds of their own for different elements")
        numbers.append(float(bound.reshape(())))
        axes = max(axes, bound.ndim)
    call.require(axes <= max(map(call.rank_of, call.sources)), BATCH_AXIS)
    name = branches[0]
    if len(branches) > 1:
        sign = -1.0 if least else 1.0
        largest = call.emit(Maximum(), *(scaled(call, branch, sign) for branch in branches))
        name = scaled(call, largest, sign)
    if numbers:
        bounds = (-math.inf, min(numbers)) if least else (max(numbers), math.inf)
        name = call.emit(clipping(*bounds), name)
    return name


# --- Sums and products -------------------------------------------------------------------------


@_converts("Add", "Sum")
def _add(call: Call) -> str:
    if len(call.step.inputs) == 1:
        return call.input
    positions = onnx_lookups.added_to_own_number(call)
    if positions is not None:
        return positions
    finite = [lambda values: onnx_attention.finite(call, values)] * len(call.step.inputs)
    return _with_bias(call) or call.emit(Add(), *call.operands(*finite))


def _with_bias(call: Call) -> str | None:
    """The MatMul that this Add gives a bias, if it does nothing else: together they are Dense."""
    if len(call.step.inputs) != 2 or call.is_data(0) == call.is_data(1):
        return None
    matmul, bias = (0, 1) if call.is_data(0) else (1, 0)
    made = call.step.inputs[matmul]
    maker = call.makers.get(made)
    if maker is None or maker.type != "MatMul":
        return None
    if len(call.readers[made]) != 1 or made in call.outputs:
        return None
    node, values = call.graph[call.data(matmul)], call.known(bias)
    fits = values.shape[-1:] == node.shape[-1:] and values.size == node.shape[-1]
    if not fits or values.ndim > len(node.shape) + 1 or not isinstance(node.operator, Dense):
        return None
    dense = replace(node.operator, bias=call.to_array(values.reshape(-1), call.step.inputs[bias]))
    call.graph.nodes[node.name] = replace(node, operator=dense)
    return node.name


@_converts("Sub")
def _sub(call: Call) -> str:
    if not call.is_data(1):
        return call.emit(Add(), *call.operands(np.asarray, np.negative))
    first, second = call.operands()
    return call.emit(Add(), first, scaled(call, second, -1.0))


@_converts("Neg")
def _neg(call: Call) -> str:
    return scaled(call, call.input, -1.0)


@_converts("Abs")
def _abs(call: Call) -> str:
    return absolute(call, call.input)


@_converts("Mul")
def _mul(call: Call) -> str:
    return call.emit(Mul(), *call.operands())


@_converts("Div")
def _div(call: Call) -> str:
    whole = call.is_data(0) and masks.are_whole(call.graph, call.data(0))
    if call.is_data(1):
        whole = whole and masks.are_whole(call.graph, call.data(1))
    else:
        whole = whole and call.versions(1)[0].dtype.kind != "f"
    call.require(not whole, "it may divide whole numbers without a remainder")
    if call.is_data(1):
        signal, divisor = call.operands()
        return call.emit(Mul(), signal, call.emit(power(-1), divisor))
    return call.emit(Mul(), *call.operands(np.asarray, lambda v: 1.0 / v.astype(np.float64)))
