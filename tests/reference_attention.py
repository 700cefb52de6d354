"""Layer norm, softmax and matrix products of two branches in float64, from their formulas.

A part of ``reference.py``. Rows are the last axis here, whatever the operator says of axes.
"""

from __future__ import annotations

import math

import numpy as np

from reference_values import Ledger, Values, per_sample, stabilize
from relprop import graph as g
from relprop import rules

NORMS = (g.LayerNorm, g.GroupNorm)


# --- Norms -------------------------------------------------------------------------------------


def in_rows(operator: g.LayerNorm | g.GroupNorm, x: Values) -> Values:
    """(N, rows, width): what each statistic is taken over."""
    count = x[0].size if len(x) else math.prod(x.shape[1:])
    width = count // operator.groups if isinstance(operator, g.GroupNorm) else operator.weight.size
    return x.reshape(len(x), count // width, width)


def parameters(operator: g.LayerNorm | g.GroupNorm, shape: tuple[int, ...]) -> tuple[Values, ...]:
    """Weight and bias in the shape of a sample."""
    weight = operator.weight.astype(np.float64)
    bias = np.zeros_like(weight) if operator.bias is None else operator.bias.astype(np.float64)
    if isinstance(operator, g.GroupNorm):
        weight, bias = (v.reshape(-1, *(1,) * (len(shape) - 1)) for v in (weight, bias))
    return np.broadcast_to(weight, shape), np.broadcast_to(bias, shape)


def deviation(operator: g.LayerNorm | g.GroupNorm, rows: Values) -> tuple[Values, Values]:
    """Each row's mean, or 0 where it is not taken off, and its deviation, (N, rows, 1)."""
    centred = getattr(operator, "centred", True)
    mean = rows.mean(-1, keepdims=True) * centred
    square = ((rows - mean) ** 2).mean(-1, keepdims=True)
    return mean, np.sqrt(square + np.float64(np.float32(operator.epsilon)))


def normal(operator: g.LayerNorm | g.GroupNorm, x: Values) -> Values:
    """Values with mean 0 and deviation 1, in the shape of x."""
    rows = in_rows(operator, x)
    mean, spread = deviation(operator, rows)
    return ((rows - mean) / spread).reshape(x.shape)


def norm(operator: g.LayerNorm | g.GroupNorm, x: Values) -> Values:
    """The operator's output."""
    weight, bias = parameters(operator, x.shape[1:])
    return normal(operator, x) * weight + bias


def centring(operator: g.LayerNorm | g.GroupNorm, width: int) -> Values:
    """The matrix that takes the mean off a row."""
    identity = np.eye(width)
    return identity - 1 / width if getattr(operator, "centred", True) else identity


def norm_relevance(
    operator: g.LayerNorm | g.GroupNorm, rule: rules.Epsilon, x: Values, r: Values
) -> tuple[list[Values], Ledger]:
    """Epsilon with the deviation held constant: input i brings x_i C_ij w_j / deviation.

    Group norm is two layers, one that normalises and one that has weights.
    """
    weight, bias = parameters(operator, x.shape[1:])
    hat, y = normal(operator, x), norm(operator, x)
    s = r / stabilize(y, rule.epsilon)
    ledger = {"bias": per_sample(bias * s), "stabilizer": per_sample(r - y * s)}
    s = s * weight
    if isinstance(operator, g.GroupNorm):
        between = hat * s
        s = between / stabilize(hat, rule.epsilon)
        ledger["stabilizer"] += per_sample(between - hat * s)
    rows = in_rows(operator, x)
    _, spread = deviation(operator, rows)
    back = in_rows(operator, s) @ centring(operator, rows.shape[-1]).T / spread
    return [(rows * back).reshape(x.shape)], ledger


def norm_gradient(operator: g.LayerNorm | g.GroupNorm, x: Values, r: Values) -> Values:
    """The derivative, the deviation's own included: d deviation / d x_i = hat_i / width."""
    weight, _ = parameters(operator, x.shape[1:])
    rows, hat = in_rows(operator, x), in_rows(operator, normal(operator, x))
    _, spread = deviation(operator, rows)
    through = in_rows(operator, r * weight)
    straight = through @ centring(operator, rows.shape[-1]).T
    by_deviation = hat * (through * hat).mean(-1, keepdims=True)
    return ((straight - by_deviation) / spread).reshape(x.shape)


# --- Softmax -----------------------------------------------------------------------------------


def softmax(operator: g.Softmax, x: Values) -> Values:
    """The operator's output."""
    exponential = np.exp(x - x.max(axis=operator.axis + 1, keepdims=True))
    return exponential / exponential.sum(axis=operator.axis + 1, keepdims=True)


def softmax_relevance(operator: g.Softmax, x: Values, r: Values) -> tuple[list[Values], Ledger]:
    """First-order Taylor around x: input i brings y_j ([i = j] - y_i) x_i, a constant the rest."""
    axis = operator.axis + 1
    y = softmax(operator, x)
    r_in = x * (r - y * r.sum(axis, keepdims=True))
    constant = 1 - (x - (y * x).sum(axis, keepdims=True))
    return [r_in], {"bias": per_sample(r * constant)}


def softmax_gradient(operator: g.Softmax, x: Values, r: Values) -> Values:
    """The derivative y_j ([i = j] - y_i)."""
    y = softmax(operator, x)
    return y * (r - (y * r).sum(operator.axis + 1, keepdims=True))


# --- Matrix products ---------------------------------------------------------------------------


def mat_mul(operator: g.MatMul, left: Values, right: Values) -> Values:
    """The operator's output."""
    return left @ (right.swapaxes(-1, -2) if operator.transposed else right)


def mat_mul_gradient(
    operator: g.MatMul, left: Values, right: Values, r: Values
) -> tuple[Values, Values]:
    """Derivatives by both factors, weighed with r."""
    if operator.transposed:
        return r @ right, r.swapaxes(-1, -2) @ left
    return r @ right.swapaxes(-1, -2), left.swapaxes(-1, -2) @ r


def mat_mul_relevance(
    operator: g.MatMul,
    rule: rules.SignalTakesAll | rules.HalfAndHalf,
    inputs: list[Values],
    r: Values,
    weights: list[float],
) -> tuple[list[Values], Ledger]:
    """Each term of a sum has its share of r, each factor of a term its weight's part of that."""
    y = mat_mul(operator, *inputs)
    s = r / stabilize(y, rule.epsilon)
    parts = mat_mul_gradient(operator, *inputs, s)
    shares = [w * x * part for w, x, part in zip(weights, inputs, parts)]
    return shares, {"stabilizer": per_sample(r - y * s)}
