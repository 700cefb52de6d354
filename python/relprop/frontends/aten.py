"""One small function per aten operator: what it is in the Graph.

:data:`TABLE` maps operator names to these functions. Each takes a :class:`Call`, adds nodes to
its Graph and returns the name of the last (a list where torch returns several results), or
raises :class:`Unsupported` with the reason.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch

from relprop.frontends import (
    aten_attention,
    aten_channels,
    aten_conditions,
    aten_masks,
    aten_moves,
    aten_norms,
    aten_recurrent,
    aten_windows,
    masks,
)
from relprop.frontends.aten_call import Call, Converter, is_data, operator_name
from relprop.frontends.conversion import (
    BATCH_AXIS,
    SELU,
    Unsupported,
    absolute,
    celu,
    clipping,
    elu,
    maximum_over,
    power,
    registering,
    scaled,
)
from relprop.graph import (
    Activation,
    Add,
    Dense,
    Embedding,
    Function,
    Maximum,
    Mean,
    Mul,
    Softmax,
)

UNALIGNED = ("einsum", "index", "select_scatter", *aten_recurrent.TABLE)
"""Operators that know the batch of each argument themselves, wherever it is."""

TABLE: dict[str, Converter] = {
    **aten_moves.TABLE,
    **aten_attention.TABLE,
    **aten_channels.TABLE,
    **aten_conditions.TABLE,
    **aten_masks.TABLE,
    **aten_norms.TABLE,
    **aten_recurrent.TABLE,
    **aten_windows.TABLE,
}
_converts = registering(TABLE)

KNOWS_IDS = ("embedding", "gather", *aten_moves.TABLE, *aten_conditions.COMPARISONS)
"""Operators that take ids as they are; to all others they are whole numbers."""


@_converts("embedding")
def _embedding(call: Call) -> str:
    return call.emit(Embedding(call.parameter("weight", axes=2)), call.data("indices"))


@_converts("linear")
def _linear(call: Call) -> str:
    weight = call.parameter("weight", axes=2)
    return call.emit(Dense(weight, call.optional_parameter("bias")))


@_converts("addmm")
def _addmm(call: Call) -> str:
    weight = np.ascontiguousarray(call.parameter("mat2", axes=2).T) * np.float32(call["alpha"])
    bias = call.parameter("self", axes=1) * np.float32(call["beta"])
    bias = np.broadcast_to(bias, (len(weight),)).copy()
    return call.emit(Dense(weight, bias), call.data("mat1"))


@_converts("mean")
def _mean(call: Call) -> str:
    axes = [call.axis(dim) for dim in call["dim"] or ()]
    call.require(bool(axes), BATCH_AXIS)
    return call.emit(Mean(tuple(sorted(axes)), call["keepdim"]))


@_converts("sum")
def _sum(call: Call) -> str:
    return _sum_over(call, call.input)


def _sum_over(call: Call, name: str) -> str:
    """The sum of a node that is shaped like the call's input, over the axes that it names."""
    axes = [call.axis(dim) for dim in call["dim"] or ()]
    call.require(bool(axes), BATCH_AXIS)
    if not call.node.meta["val"].is_floating_point() and len(axes) == 1:  # exactly
        return masks.total(call, name, axes[0], call.shape)
    mean = call.emit(Mean(tuple(sorted(axes)), call["keepdim"]), name)
    count = math.prod(call.input_shape) / math.prod(call.shape)
    return call.scaled(mean, "count", count)


@_converts("linalg_vector_norm")
def _length(call: Call) -> Any:
    order = call["ord"]
    if order == 2:
        return call.emit(power(0.5), _sum_over(call, call.emit(power(2))))
    call.require(order in (1, math.inf), f"norms of order 1, 2 and inf are supported, not {order}")
    sizes = absolute(call, call.input)
    return _sum_over(call, sizes) if order == 1 else _maximum_over(call, sizes)


@_converts("_native_batch_norm_legit", "_native_batch_norm_legit_functional")
def _batch_statistics(call: Call) -> str:
    raise Unsupported("it uses the statistics of the batch; samples must be independent")


@_converts("relu", "relu6", "silu", "sigmoid", "tanh", "exp")
def _activation(call: Call) -> str:
    return call.emit(Activation(cast(Function, operator_name(call.node.target))))


_HARD: dict[str, Function] = {"hardsigmoid": "hard_sigmoid", "hardswish": "hard_swish"}


@_converts(*_HARD)
def _hard(call: Call) -> str:
    return call.emit(Activation(_HARD[operator_name(call.node.target)]))


@_converts("softplus")
def _softplus(call: Call) -> str:
    # Above the threshold torch returns x itself, which differs by less than a float32 can hold.
    call.require(call["beta"] == 1 and call["threshold"] >= 17, "only beta 1 is supported")
    return call.emit(Activation("softplus"))


@_converts("leaky_relu")
def _leaky_relu(call: Call) -> str:
    return call.emit(Activation("leaky_relu", float(call["negative_slope"])))


@_converts("elu")
def _elu(call: Call) -> str:
    return elu(call, call.input, *(float(call[n]) for n in ("alpha", "scale", "input_scale")))


@_converts("selu")
def _selu(call: Call) -> str:
    return elu(call, call.input, *SELU)


@_converts("celu")
def _celu(call: Call) -> str:
    return celu(call, call.input, float(call["alpha"]))


@_converts("log_sigmoid")
def _log_sigmoid(call: Call) -> str:
    opposite = call.emit(Activation("softplus"), scaled(call, call.input, -1.0))
    return scaled(call, opposite, -1.0)


@_converts("gelu")
def _gelu(call: Call) -> str:
    return call.emit(Activation("gelu_tanh" if call["approximate"] == "tanh" else "gelu"))


def _bound(call: Call, name: str, default: float) -> float:
    """One number that an argument is, if it is there."""
    value = call[name]
    if value is None:
        return default
    call.require(not is_data(value), f"{name} is computed from the input")
    one = not isinstance(value, torch.Tensor) or value.numel() == 1
    call.require(one, f"{name} has bounds of their own for different elements")
    return float(value)


@_converts("hardtanh", "clamp", "clamp_min", "clamp_max", "clip")
def _clamp(call: Call) -> str:
    low, high = ("min_val", "max_val") if "min_val" in call.arguments else ("min", "max")
    return call.emit(clipping(_bound(call, low, -math.inf), _bound(call, high, math.inf)))


@_converts("amax", "amin")
def _extreme_over(call: Call) -> Any:
    sign = 1.0 if operator_name(call.node.target) in ("amax", "max") else -1.0
    largest = _maximum_over(call, scaled(call, call.input, sign))
    return call.first(scaled(call, largest, sign))


def _maximum_over(call: Call, name: str) -> str:
    """The maximum of a node that is shaped like the call's input, over the axes that it names."""
    dims = call["dim"]
    axes = [call.axis(dim) for dim in ([dims] if isinstance(dims, int) else dims or ())]
    call.require(bool(axes), BATCH_AXIS)
    return call.chain(maximum_over(call.input_shape, axes, call["keepdim"]), name)


@_converts("maximum", "minimum", "max", "min")
def _maximum(call: Call) -> Any:
    if "other" not in call.arguments:
        return _extreme_over(call)
    name, other = ("self", "other") if is_data(call["self"]) else ("other", "self")
    least = operator_name(call.node.target).startswith("min")
    if not is_data(call[other]):
        bound = _bound(call, other, 0.0)
        bounds = (-math.inf, bound) if least else (bound, math.inf)
        return call.emit(clipping(*bounds), call.data(name))
    if not least:
        return call.emit(Maximum(), call.data("self"), call.data("other"))
    negated = (call.operand("self", -1.0), call.operand("other", -1.0))
    return call.scaled(call.emit(Maximum(), *negated), "result", -1.0)


@_converts("softmax", "_softmax")
def _softmax(call: Call) -> str:
    return call.emit(Softmax(call.axis(call["dim"])))


@_converts("log_softmax", "_log_softmax")
def _log_softmax(call: Call) -> str:
    last = all(reader.op == "output" for reader in call.node.users)
    call.require(last, "log softmax is supported only as the last operator")
    return call.emit(Softmax(call.axis(call["dim"])))


@_converts("add", "sub", "subtract")
def _add(call: Call) -> str:
    sign = 1.0 if operator_name(call.node.target) == "add" else -1.0
    aten_masks.hide(call, "self")
    if sign > 0:
        aten_masks.hide(call, "other")
    first = call.operand("self")
    return call.emit(Add(), first, call.operand("other", sign * float(call["alpha"])))


@_converts("rsub")
def _rsub(call: Call) -> str:
    return call.emit(Add(), call.operand("other"), call.operand("self", -float(call["alpha"])))


@_converts("mul", "multiply")
def _mul(call: Call) -> str:
    return call.emit(Mul(), call.operand("self"), call.operand("other"))


@_converts("pow", "square")
def _pow(call: Call) -> str:
    exponent = call["exponent"] if "exponent" in call.arguments else 2
    call.require(not is_data(exponent), "the exponent depends on the input")
    exponent = torch.as_tensor(exponent)
    one = exponent.numel() == 1 and exponent.ndim <= call.rank
    call.require(one, "it has exponents of their own for different elements")
    return call.emit(power(exponent.item()), call.data("self"))


_ROOTS = {"sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0}


@_converts(*_ROOTS)
def _root(call: Call) -> str:
    return call.emit(power(_ROOTS[operator_name(call.node.target)]))


@_converts("abs", "absolute")
def _abs(call: Call) -> str:
    return absolute(call, call.input)


@_converts("neg", "negative")
def _neg(call: Call) -> str:
    return call.operand("self", -1.0)


@_converts("div", "divide", "true_divide")
def _div(call: Call) -> str:
    call.require(call["rounding_mode"] is None, "division with rounding")
    if is_data(call["other"]):
        signal = call.operand("self")
        return call.emit(Mul(), signal, call.emit(power(-1), call["other"]))
    call.arguments["other"] = 1.0 / torch.as_tensor(call["other"], dtype=torch.float64)
    return call.emit(Mul(), call.data("self"), call.operand("other"))


@_converts("addcmul")
def _addcmul(call: Call) -> str:
    scale = float(call["value"])
    if is_data(call["tensor1"]) or is_data(call["tensor2"]):
        first = call.operand("tensor1", scale)
        product = call.emit(Mul(), first, call.operand("tensor2"))
    else:
        call.arguments["product"] = call["tensor1"] * call["tensor2"]
        product = call.operand("product", scale)
    return call.emit(Add(), call.operand("self"), product)
