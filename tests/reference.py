"""Every operator and rule in float64, written from the formulas of docs/rules.md and nothing else.

The truth that the core is tested against. A linear node is a list of contributions c_ij from
input i to output j, a message per output, and a sum over outputs. The contributions come in two
forms: ``"matrix"`` writes the layer as a matrix by applying it to basis vectors, one plain formula
per rule; ``"products"`` never forms the matrix and is fast enough for whole networks.
``test_reference.py`` holds the second against the first.

Arrays are float64 and batch first; images are (N, channels, *sizes) with one to three sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product as product_of

import numpy as np
import torch
from numpy.typing import NDArray

import reference_attention as attention
from reference_values import STABILIZER, Ledger, Values, flat, per_sample, stabilize
from relprop import graph as g
from relprop import rules

MOVES = (
    g.Concat,
    g.Slice,
    g.Pad,
    g.Reshape,
    g.Permute,
    g.Identity,
    g.UpsampleNearest2d,
)
POOLS = (g.AvgPool, g.AdaptiveAvgPool)
LINEAR = (
    g.Conv,
    g.ConvTranspose,
    g.Dense,
    g.BatchNorm,
    g.Mean,
    g.UpsampleBilinear2d,
    *POOLS,
)


# --- Forward -----------------------------------------------------------------------------------


def forward(
    graph: g.Graph,
    x: Values | Mapping[str, Values],
    gates: Mapping[str, NDArray[np.floating]] | None = None,
) -> dict[str, Values]:
    """Value of every node; ``gates`` are a float32 run's values whose decisions are replayed."""
    given = x if isinstance(x, Mapping) else {graph.input.name: x}
    samples = len(next(iter(given.values())))
    values: dict[str, Values] = {}
    for node in graph:
        if isinstance(node.operator, g.Input):
            values[node.name] = np.asarray(given[node.name], np.float64)
        elif isinstance(node.operator, g.Constant):
            values[node.name] = np.repeat(
                node.operator.value[None].astype(np.float64), samples, axis=0
            )
        else:
            inputs = [values[name] for name in node.inputs]
            values[node.name] = evaluate(node.operator, inputs, deciding(node, gates))
    return values


def evaluate(operator: g.Operator, inputs: list[Values], decided: Values | None = None) -> Values:
    """One operator's output; ``decided`` replays a float32 run (see :func:`deciding`)."""
    x = inputs[0]
    if isinstance(operator, LINEAR):
        weight, bias = parameters(operator, x.ndim - 1)
        return product(operator, x, weight) + bias
    if isinstance(operator, g.MaxPool):
        planes = x.reshape(*x.shape[:2], math.prod(x.shape[2:]))
        winners = max_winners(operator, x if decided is None else decided)
        out = np.take_along_axis(planes, winners, axis=2)
        return out.reshape(len(x), *operator.infer_shape(x.shape[1:]))
    if isinstance(operator, g.LocalResponseNorm):
        c = response_scale(operator)
        return x * (operator.k + c * response_window(operator, x**2)) ** -operator.beta
    if isinstance(operator, g.Mask):
        return operator.values.astype(np.float64)[x.astype(np.intp)]
    if isinstance(operator, g.Embedding):
        return operator.weight.astype(np.float64)[x.astype(np.intp)]
    if isinstance(operator, g.Clip):
        return clip(x, operator.low, operator.high, decided)
    if isinstance(operator, g.PReLU):
        return np.where(x > 0, x, x * operator.slope.reshape(-1, *(1,) * (x.ndim - 2)))
    if isinstance(operator, g.Activation):
        return activate(operator, x, decided)
    if isinstance(operator, g.Softmax):
        return attention.softmax(operator, x)
    if isinstance(operator, attention.NORMS):
        return attention.norm(operator, x)
    if isinstance(operator, g.MatMul):
        return attention.mat_mul(operator, *inputs)
    if isinstance(operator, g.Add):
        return sum(aligned(inputs)[1:], start=aligned(inputs)[0])
    if isinstance(operator, g.Mul):
        left, right = aligned(inputs)
        return left * right
    if isinstance(operator, g.Maximum):
        return np.max(np.broadcast_arrays(*aligned(inputs)), axis=0)
    return move(operator, inputs)


def aligned(inputs: list[Values]) -> list[Values]:
    """Inputs with as many axes as the longest, so that the batch axis stays in front."""
    axes = max(x.ndim for x in inputs)
    return [x.reshape(len(x), *(1,) * (axes - x.ndim), *x.shape[1:]) for x in inputs]


def clip(x: Values, low: float, high: float, decided: Values | None) -> Values:
    """Values between two bounds; where a float32 run was cut off may be replayed."""
    seen = x if decided is None else decided
    return np.where(seen <= low, low, np.where(seen >= high, high, x))


def activate(operator: g.Activation, x: Values, decided: Values | None) -> Values:
    """An elementwise function; ReLU and ReLU6 may replay where a float32 run was cut off."""
    name, p = operator.function, operator.parameter
    if name in ("relu", "relu6"):
        return clip(x, 0.0, 6.0 if name == "relu6" else np.inf, decided)
    if name == "leaky_relu":
        return np.where(x > 0, x, p * x)
    if name == "elu":
        return np.where(x > 0, x, p * np.expm1(np.minimum(x, 0)))
    hard = np.clip(x + 3, 0, 6) / 6
    if name in ("hard_sigmoid", "hard_swish"):
        return hard if name == "hard_sigmoid" else x * hard
    if name == "softplus":
        return np.logaddexp(0, x)
    if name == "tanh":
        return np.tanh(x)
    if name == "exp":
        return np.exp(x)
    if name == "power":
        return x**p
    if name == "gelu":
        return x * 0.5 * (1 + torch.erf(torch.from_numpy(x / np.sqrt(2))).numpy())
    if name == "gelu_tanh":
        return x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    sigmoid = 0.5 * (1 + np.tanh(x / 2))
    return x * sigmoid if name == "silu" else sigmoid


def move(operator: g.Operator, inputs: list[Values]) -> Values:
    """Operators that only move values."""
    x = inputs[0]
    if isinstance(operator, g.Concat):
        return np.concatenate(inputs, axis=operator.axis + 1)
    if isinstance(operator, g.Slice):
        steps = slice(operator.start, operator.stop, operator.step)
        return x[(slice(None),) * (operator.axis + 1) + (steps,)]
    if isinstance(operator, g.Pad):
        return np.pad(x, ((0, 0), *operator.pads), constant_values=operator.value)
    if isinstance(operator, g.Reshape):
        return x.reshape(len(x), *operator.shape)
    if isinstance(operator, g.UpsampleNearest2d):
        rows, columns = (
            [min(int(o * ratio), n - 1) for o in range(size)]
            for size, ratio, n in zip(operator.size, operator.ratio, x.shape[2:])
        )
        return x[:, :, rows][:, :, :, columns]
    if isinstance(operator, g.Permute):
        return x.transpose(0, *(axis + 1 for axis in operator.axes))
    assert isinstance(operator, g.Identity), operator
    return x


def deciding(node: g.Node, gates: Mapping[str, NDArray[np.floating]] | None) -> Values | None:
    """The float32 values that decided a node: a ReLU's own output, a max pooling's input."""
    if gates is None:
        return None
    source = node.inputs[0] if isinstance(node.operator, g.MaxPool) else node.name
    return None if source not in gates else np.asarray(gates[source], np.float64)


# --- Windows -----------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def windows(
    operator: g.MaxPool | g.AvgPool | g.AdaptiveAvgPool, *sizes: int
) -> tuple[NDArray[np.intp], Values]:
    """Per output position the flat indices of its window, -1 where padding, and its divisor."""
    _, *counts = operator.infer_shape((1, *sizes))
    axes = [_spans(operator, axis, *pair) for axis, pair in enumerate(zip(counts, sizes))]
    table = np.zeros((1, 1), np.intp)  # positions, taps; padding is below zero whatever is added
    for size, (spans, _) in zip(sizes, axes):
        along = np.array(spans)
        along[along < 0] = -math.prod(sizes)
        table = (size * table[:, None, :, None] + along[:, None]).reshape(
            len(table) * len(along), -1
        )
    table[table < 0] = -1
    divisor = np.array([math.prod(of) for of in product_of(*(divisors for _, divisors in axes))])
    if isinstance(operator, g.AvgPool) and operator.divisor is not None:
        divisor = np.full_like(divisor, operator.divisor)
    return table, divisor


def _spans(
    operator: g.Operator, axis: int, count: int, size: int
) -> tuple[list[list[int]], Values]:
    """Along one axis: the inputs of every window (-1: none there), and its number of elements."""
    spans: list[list[int]] = []
    divisors: list[int] = []
    if isinstance(operator, g.AdaptiveAvgPool):
        edges = [(o * size // count, -((o + 1) * size // -count)) for o in range(count)]
        longest = max(stop - start for start, stop in edges)
        for start, stop in edges:
            spans.append([*range(start, stop), *[-1] * (longest - stop + start)])
            divisors.append(stop - start)
        return spans, np.array(divisors, np.float64)
    assert isinstance(operator, (g.MaxPool, g.AvgPool))
    before, after = operator.padding[axis]
    dilation = operator.dilation[axis] if isinstance(operator, g.MaxPool) else 1
    for o in range(count):
        start = o * operator.stride[axis] - before
        taps = [start + k * dilation for k in range(operator.kernel[axis])]
        spans.append([t if 0 <= t < size else -1 for t in taps])
        counts_padding = isinstance(operator, g.AvgPool) and operator.count_include_pad
        counted = [t for t in taps if t < size + after] if counts_padding else spans[-1]
        divisors.append(sum(t >= 0 for t in counted) if not counts_padding else len(counted))
    return spans, np.array(divisors, np.float64)


def gather(x: Values, table: NDArray[np.intp], missing: float) -> Values:
    """(N, C, *sizes) -> (N, C, positions, taps) with ``missing`` on padding."""
    planes = x.reshape(*x.shape[:2], math.prod(x.shape[2:]))
    return np.where(table < 0, missing, planes[:, :, table])


def scatter(taps: Values, table: NDArray[np.intp], shape: tuple[int, ...]) -> Values:
    """The adjoint of :func:`gather`: (N, C, positions, taps) summed back to (N, C, *sizes)."""
    out = np.zeros((*shape[:2], math.prod(shape[2:])))
    for k in range(table.shape[1]):
        real = table[:, k] >= 0
        np.add.at(out, (slice(None), slice(None), table[real, k]), taps[:, :, real, k])
    return out.reshape(shape)


def max_winners(operator: g.MaxPool, x: Values) -> NDArray[np.intp]:
    """Flat index of every window's first maximum, (N, C, positions)."""
    table, _ = windows(operator, *x.shape[2:])
    first = gather(x, table, -np.inf).argmax(axis=3)
    return np.take_along_axis(
        np.broadcast_to(table, (*first.shape, table.shape[1])), first[..., None], 3
    )[..., 0]


def response_neighbours(
    operator: g.LocalResponseNorm, shape: tuple[int, ...]
) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
    """For every place (channel, y, x) the places of its window, itself among them."""
    reach = [(operator.size // 2, (operator.size - 1) // 2)] * len(shape)
    still = [axis for axis in range(len(shape)) if (axis > 0) != operator.within_channel]
    for axis in still:
        reach[axis] = (0, 0)
    return {
        place: [
            near
            for near in np.ndindex(*shape)
            if all(-b <= n - p <= a for n, p, (b, a) in zip(near, place, reach))
        ]
        for place in np.ndindex(*shape)
    }


def response_scale(operator: g.LocalResponseNorm) -> float:
    """Alpha over the number of values in a whole window."""
    return operator.alpha / operator.size ** (2 if operator.within_channel else 1)


def response_window(operator: g.LocalResponseNorm, x: Values, *, adjoint: bool = False) -> Values:
    """Sum over the window of every place: channels, or pixels of the same channel.

    The adjoint sums over the places whose windows hold this one.
    """
    before, after = operator.size // 2, (operator.size - 1) // 2
    if adjoint:
        before, after = after, before
    for axis in (2, 3) if operator.within_channel else (1,):
        count = x.shape[axis]
        parts = [
            x.take(range(max(0, k - before), min(count, k + after + 1)), axis).sum(axis)
            for k in range(count)
        ]
        x = np.stack(parts, axis)
    return x


# --- Linear operators as products --------------------------------------------------------------


def parameters(operator: g.Operator, axes: int) -> tuple[Values, Values]:
    """Weight and bias in float64, the bias shaped to be added to an output of so many axes."""
    each = (-1, *(1,) * (axes - 1))
    if isinstance(operator, g.Conv):
        bias = np.zeros(len(operator.weight)) if operator.bias is None else operator.bias
        return operator.weight.astype(np.float64), bias.astype(np.float64).reshape(each)
    if isinstance(operator, g.ConvTranspose):
        outputs = operator.weight.shape[1] * operator.groups
        bias = np.zeros(outputs) if operator.bias is None else operator.bias
        return operator.weight.astype(np.float64), bias.astype(np.float64).reshape(each)
    if isinstance(operator, g.Dense):
        bias = np.zeros(len(operator.weight)) if operator.bias is None else operator.bias
        return operator.weight.astype(np.float64), bias.astype(np.float64)
    if isinstance(operator, g.BatchNorm):
        scale, shift = operator.scale.reshape(each), operator.shift.reshape(each)
        return scale.astype(np.float64), shift.astype(np.float64)
    return np.ones(()), np.zeros(())  # means: the divisor is part of the product


def product(operator: g.Operator, x: Values, weight: Values) -> Values:
    """The operator's linear map with another weight in its weight's place, without bias."""
    if isinstance(operator, g.Conv):
        return convolve(operator, np.pad(x, ((0, 0), (0, 0), *operator.padding)), weight)
    if isinstance(operator, g.ConvTranspose):
        transposed = getattr(torch.nn.functional, f"conv_transpose{x.ndim - 2}d")
        whole = transposed(
            torch.from_numpy(x),
            torch.from_numpy(weight),
            stride=operator.stride,
            output_padding=operator.output_padding,
            dilation=operator.dilation,
            groups=operator.groups,
        )
        return whole.numpy()[inner(operator, operator.infer_shape(x.shape[1:]))]
    if isinstance(operator, g.Dense):
        return x @ weight.T
    if isinstance(operator, g.BatchNorm):
        return x * weight
    if isinstance(operator, g.Mean):
        return weight * x.mean(axis=tuple(a + 1 for a in operator.axes), keepdims=operator.keepdims)
    if isinstance(operator, g.UpsampleBilinear2d):
        return weight * np.einsum("oi,pj,ncij->ncop", *interpolation(operator, x.shape), x)
    assert isinstance(operator, POOLS), operator
    table, divisor = windows(operator, *x.shape[2:])
    means = weight * gather(x, table, 0.0).sum(axis=3) / divisor
    return means.reshape(len(x), *operator.infer_shape(x.shape[1:]))


def convolve(operator: g.Conv | g.ConvTranspose, x: Values, weight: Values) -> Values:
    """A convolution of what is padded already."""
    out = getattr(torch.nn.functional, f"conv{x.ndim - 2}d")(
        torch.from_numpy(x),
        torch.from_numpy(weight),
        stride=operator.stride,
        dilation=operator.dilation,
        groups=operator.groups,
    )
    return out.numpy()


def inner(operator: g.Conv | g.ConvTranspose, shape: g.Shape) -> tuple[slice, ...]:
    """Where a tensor of this shape lies within itself with the padding around it."""
    axes = zip(operator.padding, shape[1:])
    return (slice(None), slice(None), *(slice(before, before + n) for (before, _), n in axes))


def adjoint(operator: g.Operator, s: Values, weight: Values, shape: tuple[int, ...]) -> Values:
    """The transposed map: what flows back to an input of the given shape (with N)."""
    if isinstance(operator, g.Conv):
        sizes = (n + sum(pads) for n, pads in zip(shape[2:], operator.padding))
        back = getattr(torch.nn.grad, f"conv{s.ndim - 2}d_input")(
            (*shape[:2], *sizes),
            torch.from_numpy(weight),
            torch.from_numpy(np.ascontiguousarray(s)),
            stride=operator.stride,
            dilation=operator.dilation,
            groups=operator.groups,
        )
        return back.numpy()[inner(operator, shape[1:])]
    if isinstance(operator, g.ConvTranspose):
        return convolve(operator, np.pad(s, ((0, 0), (0, 0), *operator.padding)), weight)
    if isinstance(operator, g.Dense):
        return s @ weight
    if isinstance(operator, g.BatchNorm):
        return s * weight
    if isinstance(operator, g.Mean):
        axes = tuple(a + 1 for a in operator.axes)
        kept = s if operator.keepdims else np.expand_dims(s, axes)
        return weight * np.broadcast_to(kept, shape) / np.prod([shape[a] for a in axes])
    if isinstance(operator, g.UpsampleBilinear2d):
        return weight * np.einsum("oi,pj,ncop->ncij", *interpolation(operator, shape), s)
    assert isinstance(operator, POOLS), operator
    table, divisor = windows(operator, *shape[2:])
    share = weight * s.reshape(*shape[:2], len(table)) / divisor
    return scatter(np.repeat(share[..., None], table.shape[1], axis=3), table, shape)


def interpolation(operator: g.UpsampleBilinear2d, shape: tuple[int, ...]) -> list[Values]:
    """Along each axis the matrix (outputs, inputs) of linear interpolation."""
    matrices = []
    for size, ratio, length in zip(operator.size, operator.ratio, shape[2:]):
        matrix = np.zeros((size, length))
        for o in range(size):
            at = o * ratio if operator.align_corners else max((o + 0.5) * ratio - 0.5, 0.0)
            before = min(int(at), length - 1)
            part = min(at - before, 1.0)
            matrix[o, before] += 1 - part
            matrix[o, min(before + 1, length - 1)] += part
        matrices.append(matrix)
    return matrices


# --- Linear operators as a matrix --------------------------------------------------------------


@lru_cache(maxsize=4)
def as_matrix(operator: g.Operator, shape: g.Shape) -> tuple[Values, Values]:
    """The layer as a matrix (inputs, outputs), and 1 for every tap that falls on a real input."""
    basis = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    weight, _ = parameters(operator, len(shape))
    matrix = plain_product(operator, basis, weight)
    taps = plain_product(operator, basis, np.ones_like(weight))
    return matrix.reshape(len(basis), -1), (taps.reshape(len(basis), -1) != 0).astype(np.float64)


def plain_product(operator: g.Operator, x: Values, weight: Values) -> Values:
    """As :func:`product`; convolutions one position after the other."""
    if isinstance(operator, g.ConvTranspose):
        return plain_transposed(operator, x, weight)
    if not isinstance(operator, g.Conv):
        return product(operator, x, weight)
    made, read, *kernel = weight.shape
    made //= operator.groups
    padded = sizes_first(np.pad(x, ((0, 0), (0, 0), *operator.padding)))
    channels, *positions = operator.infer_shape(x.shape[1:])
    out = np.zeros((*positions, len(x), channels))
    for position in np.ndindex(*positions):
        for k in np.ndindex(*kernel):
            inputs, part = padded[tap(operator, position, k)], sizes_first(weight)[k]
            for group in range(operator.groups):
                rows = slice(group * made, (group + 1) * made)
                columns = slice(group * read, (group + 1) * read)
                out[position][:, rows] += inputs[:, columns] @ part[rows].T
    return np.moveaxis(out, (-2, -1), (0, 1))


def plain_transposed(operator: g.ConvTranspose, x: Values, weight: Values) -> Values:
    """Every input pixel adds its kernel to the result, which is then cut."""
    read, made, *kernel = weight.shape
    read //= operator.groups
    shape = operator.infer_shape(x.shape[1:])
    sizes = (n + sum(pads) for n, pads in zip(shape[1:], operator.padding))
    whole = np.zeros((*sizes, len(x), shape[0]))
    for position in np.ndindex(*x.shape[2:]):
        inputs = sizes_first(x)[position]
        for k in np.ndindex(*kernel):
            out, part = whole[tap(operator, position, k)], sizes_first(weight)[k]
            for group in range(operator.groups):
                rows = slice(group * read, (group + 1) * read)
                out[:, group * made : (group + 1) * made] += inputs[:, rows] @ part[rows]
    return np.moveaxis(whole, (-2, -1), (0, 1))[inner(operator, shape)]


def sizes_first(x: Values) -> Values:
    """(N, channels, *sizes) -> (*sizes, N, channels), of which a place is a matrix."""
    return np.moveaxis(x, (0, 1), (-2, -1))


def tap(
    operator: g.Conv | g.ConvTranspose, position: tuple[int, ...], k: tuple[int, ...]
) -> tuple[int, ...]:
    """Where on the padded side a position meets a place of the kernel."""
    axes = zip(position, operator.stride, k, operator.dilation)
    return tuple(p * stride + i * dilation for p, stride, i, dilation in axes)


# --- Rules of linear operators -----------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """A linear node's contributions under a rule: their sums, and what flows back along them."""

    positive: Values
    """Sum over inputs of c+, shaped as the output; without the bias."""
    negative: Values
    back: Callable[[Values, Values], Values]
    """(s+, s-) -> sum over outputs of c+ s+ + c- s-."""
    taps: Callable[[], Values]
    """Number of real inputs of every output."""
    spread: Callable[[Values], Values]
    """t -> sum of t over the outputs that an input feeds."""


def box(bound: rules.Bound, channels: int, axes: int) -> Values:
    """A bound per channel, shaped to multiply inputs (N, channels, ...)."""
    per_channel = np.broadcast_to(np.asarray(bound, np.float64).ravel(), (channels,))
    return per_channel.reshape(-1, *(1,) * (axes - 2))


def split_by_matrix(rule: rules.Rule, operator: g.Operator, a: Values) -> Split:
    """Contributions c_ij written out, (N, inputs, outputs)."""
    matrix, real = as_matrix(operator, a.shape[1:])
    out_shape = (len(a), *operator.infer_shape(a.shape[1:]))
    column = a.reshape(len(a), matrix.shape[0], 1)
    if isinstance(rule, rules.Flat):
        c = np.broadcast_to(real, (len(a), *real.shape))
    elif isinstance(rule, rules.WSquare):
        c = np.broadcast_to(matrix**2, (len(a), *matrix.shape))
    elif isinstance(rule, rules.ZBox):
        low, high = (
            np.broadcast_to(box(bound, a.shape[1], a.ndim), a.shape[1:]).reshape(-1, 1)
            for bound in (rule.low, rule.high)
        )
        c = column * matrix - low * np.maximum(matrix, 0) - high * np.minimum(matrix, 0)
    else:
        c = column * matrix
    plus, minus = np.maximum(c, 0), np.minimum(c, 0)

    def back(s_plus: Values, s_minus: Values) -> Values:
        rows = [flat(s)[:, None] for s in (s_plus, s_minus)]
        return (plus * rows[0] + minus * rows[1]).sum(axis=2).reshape(a.shape)

    return Split(
        positive=plus.sum(axis=1).reshape(out_shape),
        negative=minus.sum(axis=1).reshape(out_shape),
        back=back,
        taps=lambda: real.sum(axis=0).reshape(out_shape[1:]),
        spread=lambda t: (flat(t) @ real.T).reshape(a.shape),
    )


def split_by_products(rule: rules.Rule, operator: g.Operator, a: Values) -> Split:
    """The same sums as products of split inputs with split weights."""
    weight, _ = parameters(operator, a.ndim - 1)
    if isinstance(rule, (rules.Flat, rules.WSquare)) and weight.ndim == 0:
        raise NotImplementedError(f"{rule} on {type(operator).__name__} has the matrix form only.")

    def terms() -> tuple[list[tuple[Values, Values]], list[tuple[Values, Values]]]:
        """Pairs of an input and a weight whose products make c+ and c-."""
        if isinstance(rule, rules.Flat):
            return [(np.ones_like(a), np.ones_like(weight))], []
        if isinstance(rule, rules.WSquare):
            return [(np.ones_like(a), weight**2)], []
        above, below = np.maximum(weight, 0), np.minimum(weight, 0)
        if isinstance(rule, rules.ZBox):
            low, high = (box(bound, a.shape[1], a.ndim) for bound in (rule.low, rule.high))
            return [(a - low, above), (a - high, below)], []
        if isinstance(rule, rules.Epsilon):
            return [(a, weight)], []
        up, down = np.maximum(a, 0), np.minimum(a, 0)
        if isinstance(rule, rules.AlphaBeta) and rule.beta == 0:
            return [(up, above), (down, below)], []  # nothing is ever sent along c-
        return [(up, above), (down, below)], [(up, below), (down, above)]

    def total(pairs: list[tuple[Values, Values]]) -> Values:
        out = np.zeros((len(a), *operator.infer_shape(a.shape[1:])))
        return sum((product(operator, x, w) for x, w in pairs if x.any()), start=out)

    plus, minus = terms()

    def back(s_plus: Values, s_minus: Values) -> Values:
        out = np.zeros_like(a)
        for pairs, s in ((plus, s_plus), (minus, s_minus)):
            for x, w in pairs:
                if x.any() and s.any():
                    out += x * adjoint(operator, s, w, a.shape)
        return out

    def taps() -> Values:
        one = np.ones((1, *a.shape[1:]))
        return product(operator, one, np.ones_like(weight))[0]

    return Split(
        positive=total(plus),
        negative=total(minus),
        back=back,
        taps=taps,
        spread=lambda t: adjoint(operator, t, np.ones_like(weight), a.shape),
    )


def bias_parts(rule: rules.Rule, bias: Values) -> tuple[Values, Values]:
    """The bias's share of Z+ and Z-."""
    if isinstance(rule, (rules.ZBox, rules.Flat)) or rule.bias == "exclude":
        return np.zeros_like(bias), np.zeros_like(bias)
    if isinstance(rule, rules.WSquare):
        return bias**2, np.zeros_like(bias)
    return np.maximum(bias, 0), np.minimum(bias, 0)


def message(
    rule: rules.Rule, positive: Values, negative: Values, z: Values | None, r: Values
) -> tuple[Values, Values]:
    """(s+, s-) of every output from its Z+, Z-, pre-activation (gamma) and relevance."""
    if isinstance(rule, rules.AlphaBeta):
        return rule.alpha * r / stabilize(positive), -rule.beta * r / stabilize(negative)
    if isinstance(rule, rules.Gamma):
        assert z is not None
        more = 1 + rule.gamma
        above = r / stabilize(more * positive + negative)
        below = r / stabilize(positive + more * negative)
        up = np.where(z > 0, more * above, np.where(z < 0, below, 0.0))
        down = np.where(z > 0, above, np.where(z < 0, more * below, 0.0))
        return up, down
    epsilon = rule.epsilon if isinstance(rule, rules.Epsilon) else STABILIZER
    total = positive + negative
    # A mean's weights, 1/9 say, leave rounding where its inputs cancel exactly.
    total = np.where(np.abs(total) < 1e-13 * (positive - negative), 0.0, total)
    s = r / stabilize(total, epsilon)
    return s, s


def linear(
    rule: rules.Rule, operator: g.Operator, a: Values, r: Values, form: str
) -> tuple[Values, Ledger]:
    """Relevance of a linear node's input, and what was absorbed on the way."""
    split = (split_by_matrix if form == "matrix" else split_by_products)(rule, operator, a)
    weight, bias = parameters(operator, a.ndim - 1)
    above, below = bias_parts(rule, bias)
    positive, negative = split.positive + above, split.negative + below
    # Gamma alone asks for the pre-activation, which keeps a bias that its Z may leave out.
    z = product(operator, a, weight) + bias if isinstance(rule, rules.Gamma) else None
    s_plus, s_minus = message(rule, positive, negative, z, r)
    to_bias = above * s_plus + below * s_minus
    into_stabilizer = r - positive * s_plus - negative * s_minus
    r_in = split.back(s_plus, s_minus)
    if getattr(rule, "bias", "absorb") == "distribute":
        # An output without a single real input has nobody to hand its bias's share to.
        taps = split.taps()
        r_in = r_in + split.spread(to_bias / np.maximum(taps, 1))
        to_bias = np.where(taps == 0, to_bias, 0.0)
    return r_in, {"bias": per_sample(to_bias), "stabilizer": per_sample(into_stabilizer)}


# --- Rules of the other operators --------------------------------------------------------------


def propagate(
    operator: g.Operator,
    rule: rules.Rule,
    inputs: list[Values],
    r: Values,
    *,
    form: str = "matrix",
    decided: Values | None = None,
    gate: int | None = None,
    constant: tuple[bool, ...] = (),
) -> tuple[list[Values], Ledger]:
    """Relevance of one node's inputs and its ledger, from its inputs' values and its relevance.

    ``decided`` as in :func:`evaluate`; ``gate`` is a product's gate; ``constant`` says which
    inputs depend on no input of the network.
    """
    x = inputs[0]
    if isinstance(rule, rules.Zero):
        return [np.zeros_like(x) for x in inputs], {"zero": per_sample(r)}
    if isinstance(rule, rules.Deconvolution):
        return [np.maximum(r, 0)], {}
    if isinstance(rule, rules.GuidedBackprop):
        return gradient(operator, inputs, np.maximum(r, 0), decided), {}
    if isinstance(rule, rules.Gradient):
        return gradient(operator, inputs, r, decided), {}
    if isinstance(operator, LINEAR) and not isinstance(rule, rules.Pass):
        r_in, ledger = linear(rule, operator, x, r, form)
        return [r_in], ledger
    if isinstance(operator, g.MaxPool):
        return max_pool(operator, rule, x, r, decided)
    if isinstance(operator, g.LocalResponseNorm) and isinstance(rule, rules.Taylor):
        return taylor(operator, x, r)
    if isinstance(operator, g.Add):
        return add(rule, inputs, r)
    if isinstance(operator, attention.NORMS):
        return attention.norm_relevance(operator, rule, x, r)
    if isinstance(operator, g.Softmax):
        return attention.softmax_relevance(operator, x, r)
    if isinstance(operator, g.Mul):
        return multiply(rule, inputs, r, gate, constant)
    if isinstance(operator, g.MatMul):
        weights = factor_weights(rule, gate, constant)
        return attention.mat_mul_relevance(operator, rule, inputs, r, weights)
    if isinstance(operator, g.Maximum):
        return maximum(inputs, r)
    if isinstance(operator, g.Embedding):
        return [r.sum(axis=-1)], {}
    if isinstance(operator, MOVES):
        return move_back(operator, inputs, r)
    assert isinstance(rule, rules.Pass), (operator, rule)
    return [r], {}


def gradient(
    operator: g.Operator, inputs: list[Values], r: Values, decided: Values | None
) -> list[Values]:
    """Derivatives of one node's output by its inputs, weighed with ``r`` and summed."""
    x = inputs[0]
    if isinstance(operator, LINEAR):
        weight, _ = parameters(operator, x.ndim - 1)
        return [adjoint(operator, r, weight, x.shape)]
    if isinstance(operator, g.MaxPool):
        return max_pool(operator, rules.WinnerTakesAll(), x, r, decided)[0]
    if isinstance(operator, g.Maximum):
        return maximum(inputs, r)[0]
    if isinstance(operator, g.LocalResponseNorm):
        return [response_gradient(operator, x, r)]
    if isinstance(operator, g.Add):
        return [reduce_to(r, x.shape).reshape(y.shape) for x, y in zip(aligned(inputs), inputs)]
    if isinstance(operator, attention.NORMS):
        return [attention.norm_gradient(operator, x, r)]
    if isinstance(operator, g.Softmax):
        return [attention.softmax_gradient(operator, x, r)]
    if isinstance(operator, g.MatMul):
        return list(attention.mat_mul_gradient(operator, *inputs, r))
    if isinstance(operator, g.Mul):
        left, right = aligned(inputs)
        pairs = zip((left, right), (r * right, r * left), inputs)
        return [reduce_to(product, x.shape).reshape(y.shape) for x, product, y in pairs]
    if isinstance(operator, MOVES):
        return move_back(operator, inputs, r)[0]
    return [r * derivative(operator, x, decided)]


def derivative(operator: g.Operator, x: Values, decided: Values | None) -> Values:
    """An elementwise function's derivative; ``decided`` as in :func:`evaluate`."""
    bounds = g.clip_bounds(operator)
    if bounds is not None:
        seen = x if decided is None else decided
        return ((seen > bounds[0]) & (seen < bounds[1])).astype(np.float64)
    if isinstance(operator, g.PReLU):
        return np.where(x > 0, 1.0, operator.slope.reshape(-1, *(1,) * (x.ndim - 2)))
    assert isinstance(operator, g.Activation), operator
    name, p = operator.function, operator.parameter
    if name == "leaky_relu":
        return np.where(x > 0, 1.0, p)
    if name == "elu":
        return np.where(x > 0, 1.0, p * np.exp(np.minimum(x, 0)))
    if name == "hard_sigmoid":
        return ((x > -3) & (x < 3)) / 6
    if name == "hard_swish":
        return np.where(x <= -3, 0.0, np.where(x < 3, x / 3 + 0.5, 1.0))
    if name == "exp":
        return np.exp(x)
    if name == "power":
        return p * x ** (p - 1)
    if name == "gelu":
        return 0.5 * torch.erfc(torch.from_numpy(-x / np.sqrt(2))).numpy() + x * np.exp(
            -(x**2) / 2
        ) / np.sqrt(2 * np.pi)
    e = np.exp(-np.abs(x))
    sigmoid = np.where(x >= 0, 1, e) / (1 + e)
    bump = e / (1 + e) ** 2
    if name == "tanh":
        return 4 * np.exp(-2 * np.abs(x)) / (1 + np.exp(-2 * np.abs(x))) ** 2
    if name == "gelu_tanh":
        c = np.sqrt(2 / np.pi)
        u = c * (x + 0.044715 * x**3)
        return 0.5 * (1 + np.tanh(u)) + 0.5 * x / np.cosh(np.clip(u, -300, 300)) ** 2 * c * (
            1 + 3 * 0.044715 * x**2
        )
    return {"sigmoid": bump, "softplus": sigmoid, "silu": sigmoid + x * bump}[name]


def response_gradient(operator: g.LocalResponseNorm, x: Values, r: Values) -> Values:
    """Of y_k = x_k n_k^-b: n_k^-b where i = k, less 2 b c x_k x_i n_k^-(b + 1) in k's window."""
    b, c = operator.beta, response_scale(operator)
    norm = operator.k + c * response_window(operator, x**2)
    through = response_window(operator, r * x * norm ** -(b + 1), adjoint=True)
    return r * norm**-b - 2 * b * c * x * through


def max_pool(
    operator: g.MaxPool, rule: rules.Rule, x: Values, r: Values, decided: Values | None
) -> tuple[list[Values], Ledger]:
    """The winner takes all, or every input of the window its share."""
    table, _ = windows(operator, *x.shape[2:])
    r = r.reshape(*x.shape[:2], len(table))
    if isinstance(rule, rules.Proportional):
        taps = gather(x, table, 0.0)
        shares = taps * (r / stabilize(taps.sum(axis=3), rule.epsilon))[..., None]
        return [scatter(shares, table, x.shape)], {"stabilizer": per_sample(r) - per_sample(shares)}
    winners = max_winners(operator, x if decided is None else decided)
    flat = np.zeros((*x.shape[:2], math.prod(x.shape[2:])))
    n, c = np.ix_(range(x.shape[0]), range(x.shape[1]))
    np.add.at(flat, (n[..., None], c[..., None], winners), r)
    return [flat.reshape(x.shape)], {}


def taylor(operator: g.LocalResponseNorm, x: Values, r: Values) -> tuple[list[Values], Ledger]:
    """Local response normalisation by its first-order expansion (Binder et al. 2016)."""
    b, c = operator.beta, response_scale(operator)
    norm = operator.k + c * response_window(operator, x**2)
    r_in = np.zeros_like(x)
    handed = np.zeros(len(x))
    for k, near in response_neighbours(operator, x.shape[1:]).items():
        at = (slice(None), *k)
        m = {
            i: x[at] * (operator.k + c * x[at] ** 2) ** -b
            if i == k
            else -2 * b * c * x[at] * x[(slice(None), *i)] ** 2 * norm[at] ** -(b + 1)
            for i in near
        }
        s = r[at] / stabilize(np.sum(list(m.values()), axis=0))
        for i in near:
            r_in[(slice(None), *i)] += m[i] * s
            handed += m[i] * s
    return [r_in], {"stabilizer": per_sample(r) - handed}


def add(rule: rules.Rule, inputs: list[Values], r: Values) -> tuple[list[Values], Ledger]:
    """Every branch in proportion to its value."""
    assert isinstance(rule, rules.Epsilon), rule
    branches = aligned(inputs)
    total = sum(branches[1:], start=branches[0])
    s = r / stabilize(total, rule.epsilon)
    shares = [reduce_to(np.broadcast_to(x, s.shape) * s, x.shape) for x in branches]
    ledger = {"stabilizer": per_sample(r - total * s)}
    return [share.reshape(x.shape) for share, x in zip(shares, inputs)], ledger


def multiply(
    rule: rules.Rule, inputs: list[Values], r: Values, gate: int | None, constant: tuple[bool, ...]
) -> tuple[list[Values], Ledger]:
    """Each factor has its weight's part of the relevance."""
    weights = factor_weights(rule, gate, constant)
    branches = aligned(inputs)
    shares = [
        reduce_to(weight * r, x.shape).reshape(y.shape)
        for weight, x, y in zip(weights, branches, inputs)
    ]
    return shares, {}


def factor_weights(rule: rules.Rule, gate: int | None, constant: tuple[bool, ...]) -> list[float]:
    """The signal takes all; two signals half each; a constant nothing."""
    signal = None if gate is None else 1 - gate
    if isinstance(rule, rules.HalfAndHalf):
        signal = None
    elif isinstance(rule, rules.SignalTakesAll) and rule.signal is not None:
        signal = rule.signal
    if constant.count(True) == 1:
        signal = constant.index(False)
    return [0.5, 0.5] if signal is None else [float(i == signal) for i in (0, 1)]


def maximum(inputs: list[Values], r: Values) -> tuple[list[Values], Ledger]:
    """The largest branch takes all, the first one on ties."""
    branches = aligned(inputs)
    winner = np.argmax(np.broadcast_arrays(*branches), axis=0)
    shares = [reduce_to(np.where(winner == i, r, 0.0), x.shape) for i, x in enumerate(branches)]
    return [share.reshape(x.shape) for share, x in zip(shares, inputs)], {}


def reduce_to(x: Values, shape: tuple[int, ...]) -> Values:
    """The adjoint of broadcasting: sum over the axes along which ``shape`` was repeated."""
    axes = tuple(i for i, (n, m) in enumerate(zip(x.shape, shape)) if m == 1 and n != 1 and i > 0)
    return x.sum(axis=axes, keepdims=True)


def move_back(operator: g.Operator, inputs: list[Values], r: Values) -> tuple[list[Values], Ledger]:
    """Relevance goes back to where its value came from; a pad's own cells are constants."""
    n = len(r)
    sizes = [int(np.prod(x.shape[1:])) for x in inputs]
    starts = np.cumsum([0, *sizes])
    sources = [
        np.arange(start + 1, start + size + 1, dtype=np.float64).reshape(1, *x.shape[1:])
        for start, size, x in zip(starts, sizes, inputs)
    ]
    # Number every input cell from 1, move the numbers, and send each cell's relevance home.
    silent = g.Pad(operator.pads, 0.0) if isinstance(operator, g.Pad) else operator
    home = move(silent, sources).astype(np.intp).ravel()
    flat = np.zeros((n, starts[-1] + 1))
    np.add.at(flat, (slice(None), home), r.reshape(n, len(home)))
    parts = [
        flat[:, start + 1 : start + size + 1].reshape(x.shape)
        for start, size, x in zip(starts, sizes, inputs)
    ]
    return parts, {"constants": flat[:, 0]} if isinstance(operator, g.Pad) else {}


# --- Whole networks ----------------------------------------------------------------------------


def relevance(
    graph: g.Graph,
    assigned: Mapping[str, rules.Rule],
    x: Values | Mapping[str, Values],
    output_relevance: Values,
    gates: Mapping[str, NDArray[np.floating]] | None = None,
    form: str = "products",
) -> tuple[dict[str, Values], dict[str, Ledger]]:
    """Relevance at every node's output, and per node what it absorbed.

    Parameters
    ----------
    graph
        The network, of one output.
    assigned
        A rule for every node but inputs and constants.
    x
        The network's input, or its inputs by their names.
    output_relevance
        Relevance of the network's output.
    gates
        Values of a float32 run, by node, whose ReLU signs and pooling winners are replayed.
    form
        How linear nodes are computed, ``"products"`` or ``"matrix"``.
    """
    values = forward(graph, x, gates)
    found = {node.name: np.zeros_like(values[node.name]) for node in graph}
    found[graph.output] = np.asarray(output_relevance, np.float64).reshape(
        found[graph.output].shape
    )
    ledger: dict[str, Ledger] = {}
    fixed = factors_without_relevance(graph)
    for node in reversed(list(graph)):
        r = found[node.name]
        if isinstance(node.operator, g.Input):
            continue
        if isinstance(node.operator, g.Constant):
            ledger[node.name] = {"constants": per_sample(r)}
            continue
        shares, ledger[node.name] = propagate(
            node.operator,
            assigned[node.name],
            [values[name] for name in node.inputs],
            r,
            form=form,
            decided=deciding(node, gates),
            gate=gate_of(graph, node),
            constant=tuple(name in fixed for name in node.inputs),
        )
        for name, share in zip(node.inputs, shares):
            found[name] = found[name] + share
    return found, ledger


def factors_without_relevance(graph: g.Graph) -> set[str]:
    """Names of the nodes that take nothing of a product: constants, and what masks alone decide."""
    found: set[str] = set()
    for node in graph:
        made = not isinstance(node.operator, g.Input) and found.issuperset(node.inputs)
        if made or isinstance(node.operator, g.Mask):
            found.add(node.name)
    return found


def gate_of(graph: g.Graph, node: g.Node) -> int | None:
    """Position of a product's gate: the operand that is divided by, else one that ends in a
    sigmoid or softmax; None where neither or both are.
    """
    if not isinstance(node.operator, g.Mul | g.MatMul):
        return None
    for ends in (_ends_in_quotient, _ends_in_gate):
        gates = [i for i, name in enumerate(node.inputs) if ends(_before_moves(graph, name))]
        if gates:
            return gates[0] if len(gates) == 1 else None
    return None


def _before_moves(graph: g.Graph, name: str) -> g.Node:
    node = graph[name]
    while isinstance(node.operator, MOVES) and len(node.inputs) == 1:
        node = graph[node.inputs[0]]
    return node


def _ends_in_quotient(node: g.Node) -> bool:
    operator = node.operator
    return isinstance(operator, g.Activation) and (
        operator.function == "power" and operator.parameter < 0
    )


def _ends_in_gate(node: g.Node) -> bool:
    if isinstance(node.operator, g.Activation):
        return node.operator.function in ("sigmoid", "hard_sigmoid")
    return isinstance(node.operator, g.Softmax)
