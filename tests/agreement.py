"""Runs one node through the core and holds it against the reference.

Errors are measured against what float32 can know: per output, the sum of the absolute
contributions over the denominator (its condition) times 1e-5, carried back to the inputs as
relevance is. Rules whose denominators do not cancel have condition one.
"""

from __future__ import annotations

import numpy as np

import reference
from cases import LINEAR_RULES, Case, Kind, numbers
from reference import Values
from relprop import Explainer, Result, rules
from relprop import graph as g

TOLERANCE = 1e-5
CATEGORIES = ("bias", "stabilizer", "constants", "zero")


def build(operator: g.Operator, shapes: list[g.Shape], after_relu: bool = False) -> g.Graph:
    """A graph of the one node "layer"; several inputs are cut from one flat network input."""
    graph = g.Graph()
    if len(shapes) == 1:
        content = "ids" if isinstance(operator, g.Embedding) else "numbers"
        graph.add("input", g.Input(shapes[0], content))
        sources = ["input"]
    else:
        sizes = [int(np.prod(shape)) for shape in shapes]
        graph.add("input", g.Input((sum(sizes),)))
        sources = []
        for i, (shape, stop) in enumerate(zip(shapes, np.cumsum(sizes))):
            graph.add(f"cut{i}", g.Slice(0, int(stop) - sizes[i], int(stop)), ["input"])
            sources.append(graph.add(f"branch{i}", g.Reshape(shape), [f"cut{i}"]))
    if after_relu:
        sources = [graph.add(f"relu{i}", g.Activation("relu"), [s]) for i, s in enumerate(sources)]
    graph.add("layer", operator, sources)
    return graph


def assert_case_agrees(case: Case, after_relu: bool) -> None:
    """A listed layer agrees with the reference under every rule of layers with weights."""
    rng = np.random.default_rng(len(case.name))
    operator = case.layer(rng)
    for rule in LINEAR_RULES:
        assert_layer_agrees(operator, case.shape, rule, rng, after_relu=after_relu, form="products")


def assert_layer_agrees(
    operator: g.Operator,
    shape: g.Shape,
    rule: rules.Rule,
    rng: np.random.Generator,
    *,
    n: int = 2,
    kinds: tuple[Kind, Kind] = ("normal", "normal"),
    after_relu: bool = False,
    form: str = "matrix",
) -> None:
    """As :func:`assert_agrees`, on a value and a relevance drawn here, of the given kinds."""
    x = numbers(rng, (n, *shape), kinds[0])
    r = numbers(rng, (n, *operator.infer_shape(shape)), kinds[1])
    after_relu = after_relu and not isinstance(rule, rules.ZBox)  # a box bounds the input
    held = away_from_the_sign_test(operator, rule, np.maximum(x, 0) if after_relu else x, r)
    assert_agrees(operator, [x], rule, held, after_relu=after_relu, form=form)


def assert_agrees(
    operator: g.Operator,
    xs: list[g.Array],
    rule: rules.Rule,
    r: g.Array,
    *,
    after_relu: bool = False,
    form: str = "matrix",
) -> None:
    """Forward value, relevance and ledger of the node are those of the reference."""
    n = len(r)
    graph = build(operator, [x.shape[1:] for x in xs], after_relu)
    explainer = Explainer(graph, rules={"layer": rule})
    x = xs[0] if len(xs) == 1 else np.concatenate([reference.flat(x) for x in xs], axis=1)
    result = explainer(x, target=r)

    inputs = [x.astype(np.float64) for x in xs]
    if after_relu:
        inputs = [np.maximum(x, 0) for x in inputs]
    value = reference.evaluate(operator, inputs)
    np.testing.assert_allclose(
        result.scores.reshape(value.shape),
        value,
        rtol=1e-5,
        atol=1e-5 * max(np.abs(x).max(initial=0) for x in [*inputs, value]),
    )

    upstream = r.astype(np.float64)
    expected, ledger = reference.propagate(operator, rule, inputs, upstream, form=form)
    reach, scale = bounds(operator, rule, inputs, upstream, expected)
    size = np.concatenate([reference.flat(b) for b in reach], axis=1)
    error = reference.flat(result.relevance) - np.concatenate(
        [reference.flat(e) for e in expected], axis=1
    )
    for sample in range(n):
        limit = TOLERANCE * np.linalg.norm(size[sample]) + 1e-30
        assert np.linalg.norm(error[sample]) <= limit, (rule, error[sample], expected)
    if isinstance(rule, rules.UNCONSERVED):
        assert result.ledger is None
        return
    at = result.ledger.nodes.index("layer")
    magnitude = reference.per_sample(np.abs(upstream))
    off = np.abs(result.ledger.relevance[:, at] - reference.per_sample(upstream))
    assert (off <= 1e-6 * magnitude).all(), rule
    np.testing.assert_allclose(result.ledger.magnitude[:, at], magnitude, rtol=1e-6)
    for category in CATEGORIES:
        booked = getattr(result.ledger, category).sum(axis=1)
        np.testing.assert_array_less(
            np.abs(booked - ledger.get(category, np.zeros(n))),
            TOLERANCE * scale + 1e-30,
            err_msg=f"{category} under {rule}",
        )


def assert_every_node_agrees(explainer: Explainer, x: dict[str, g.Array], target: object) -> Result:
    """Each node's relevance follows from the core's own values, and the relevance behind it.

    Unlike a comparison from end to end, no rounding of one node is judged at another.
    """
    graph = explainer.graph
    result = explainer(x, target, intermediate=[node.name for node in graph if node.name not in x])
    samples = len(result.scores)
    values = {**result.activations, **x}
    found = {**result.intermediate, **result.relevance}
    expected = {node.name: np.zeros((samples, *node.shape)) for node in graph}
    reach = {node.name: np.zeros((samples, *node.shape)) for node in graph}
    fixed = reference.factors_without_relevance(graph)
    for node in graph:
        if not node.inputs:
            continue
        # Where a ReLU is fused there is no value before it, and its rule needs none.
        inputs = [
            np.asarray(values.get(source, np.zeros((samples, *graph[source].shape))), np.float64)
            for source in node.inputs
        ]
        r = found[node.name].astype(np.float64)
        rule = explainer.rules[node.name]
        shares, _ = reference.propagate(
            node.operator,
            rule,
            inputs,
            r,
            form="products",
            decided=reference.deciding(node, values),
            gate=reference.gate_of(graph, node),
            constant=tuple(source in fixed for source in node.inputs),
        )
        sizes, _ = bounds(node.operator, rule, inputs, r, shares)
        for source, share, size in zip(node.inputs, shares, sizes, strict=True):
            expected[source] = expected[source] + share
            reach[source] = reach[source] + size
    for node in graph:
        if node.name != graph.output:
            error = np.linalg.norm(found[node.name] - expected[node.name])
            limit = TOLERANCE * np.linalg.norm(reach[node.name]) + 1e-30
            assert error <= limit, (node.name, error, limit)
    return result


def bounds(
    operator: g.Operator, rule: rules.Rule, inputs: list[Values], r: Values, expected: list[Values]
) -> tuple[list[Values], Values]:
    """Per input the size that errors are measured by, and per sample that of the ledger."""
    if isinstance(rule, rules.Zero):
        return [np.zeros_like(x) for x in inputs], reference.per_sample(np.abs(r))
    if isinstance(rule, rules.UNCONSERVED):
        return gradient_bounds(operator, inputs, r, expected), np.zeros(len(r))
    if isinstance(operator, reference.LINEAR) and not isinstance(rule, rules.Pass):
        return linear_bounds(operator, rule, inputs[0], r)
    if isinstance(operator, reference.attention.NORMS):
        return norm_bounds(operator, rule, inputs[0], r)
    if isinstance(operator, g.Softmax):
        return softmax_bounds(operator, inputs[0], r)
    if isinstance(operator, g.MatMul):
        return mat_mul_bounds(operator, rule, inputs, r)
    if isinstance(operator, g.Add):
        branches = reference.aligned(inputs)
        denominator = np.abs(reference.stabilize(sum(branches), rule.epsilon))
        largest = sum(np.abs(x) for x in branches)
        t = np.abs(r) / denominator * np.maximum(1, largest / denominator)
        reach = [reference.reduce_to(np.abs(x) * t, x.shape) for x in branches]
        return reach, reference.per_sample(np.abs(r) + largest * t)
    if isinstance(operator, g.MaxPool) and isinstance(rule, rules.Proportional):
        table, _ = reference.windows(operator, *inputs[0].shape[2:])
        taps = reference.gather(inputs[0], table, 0.0)
        denominator = reference.stabilize(taps.sum(axis=3), rule.epsilon)
        condition = np.maximum(1, np.abs(taps).sum(axis=3) / np.abs(denominator))
        t = np.abs(r.reshape(denominator.shape) / denominator) * condition
        shares = np.abs(taps) * t[..., None]
        reach = reference.scatter(shares, table, inputs[0].shape)
        return [reach], reference.per_sample(np.abs(r)) + reference.per_sample(shares)
    return [np.abs(e) + np.abs(r).max(initial=0) for e in expected], reference.per_sample(np.abs(r))


def gradient_bounds(
    operator: g.Operator, inputs: list[Values], r: Values, expected: list[Values]
) -> list[Values]:
    """The sums of magnitudes that layers with weights make; of others what comes and goes."""
    if isinstance(operator, reference.LINEAR):
        weight, _ = reference.parameters(operator, inputs[0].ndim - 1)
        shape = inputs[0].shape
        return [reference.adjoint(operator, np.abs(r), np.abs(weight), shape)]
    if isinstance(operator, reference.attention.NORMS):
        return [norm_gradient_bounds(operator, inputs[0], r)]
    if isinstance(operator, g.Softmax):
        return [softmax_gradient_bounds(operator, inputs[0], r)]
    if isinstance(operator, g.MatMul):
        sizes = [np.abs(x) for x in inputs]
        return list(reference.attention.mat_mul_gradient(operator, *sizes, np.abs(r)))
    return [np.abs(e) + np.abs(r).max(initial=0) for e in expected]


def norm_bounds(
    operator: g.LayerNorm | g.GroupNorm, rule: rules.Epsilon, x: Values, r: Values
) -> tuple[list[Values], Values]:
    """As of layers with weights; a value close to the mean is a difference of larger ones."""
    of = reference.attention
    rows = of.in_rows(operator, x)
    mean, spread = of.deviation(operator, rows)
    read = ((np.abs(rows) + np.abs(mean)) / spread).reshape(x.shape)
    weight, bias = (np.abs(v) for v in of.parameters(operator, x.shape[1:]))
    denominator = np.abs(reference.stabilize(of.norm(operator, x), rule.epsilon))
    t = np.abs(r) / denominator * np.maximum(1, (weight * read + bias) / denominator)
    booked = (weight * read + bias) * t
    t = t * weight
    if isinstance(operator, g.GroupNorm):
        hat = of.normal(operator, x)
        between = read * t
        denominator = np.abs(reference.stabilize(hat, rule.epsilon))
        t = between / denominator * np.maximum(1, read / denominator)
        booked = booked + read * t
    t = of.in_rows(operator, t)
    reach = np.abs(rows) * (t + t.mean(-1, keepdims=True)) / spread
    return [reach.reshape(x.shape)], reference.per_sample(np.abs(r) + booked)


def norm_gradient_bounds(operator: g.LayerNorm | g.GroupNorm, x: Values, r: Values) -> Values:
    """What goes straight, by the mean and by the deviation, each by its size."""
    of = reference.attention
    rows = of.in_rows(operator, x)
    mean, spread = of.deviation(operator, rows)
    weight, _ = of.parameters(operator, x.shape[1:])
    t = of.in_rows(operator, np.abs(r * weight))
    read = (np.abs(rows) + np.abs(mean)) / spread
    reach = t + t.mean(-1, keepdims=True) + read * (t * read).mean(-1, keepdims=True)
    return (reach / spread).reshape(x.shape)


def softmax_bounds(operator: g.Softmax, x: Values, r: Values) -> tuple[list[Values], Values]:
    """Sizes of what comes and goes; an exponential errs by its argument's rounding."""
    axis = operator.axis + 1
    y, condition = reference.attention.softmax(operator, x), exponent(x, axis)
    reach = np.abs(x) * (np.abs(r) + y * condition * np.abs(r).sum(axis, keepdims=True))
    mean = (y * condition * np.abs(x)).sum(axis, keepdims=True)
    return [reach], reference.per_sample(np.abs(r) * (1 + np.abs(x) + mean))


def softmax_gradient_bounds(operator: g.Softmax, x: Values, r: Values) -> Values:
    """Both terms by their sizes."""
    axis = operator.axis + 1
    y = reference.attention.softmax(operator, x) * exponent(x, axis)
    return y * (np.abs(r) + (y * np.abs(r)).sum(axis, keepdims=True))


def exponent(x: Values, axis: int) -> Values:
    """How much larger than its own rounding the error of an exponential is."""
    return 1 + np.abs(x) + np.abs(x).max(axis, keepdims=True)


def mat_mul_bounds(
    operator: g.MatMul, rule: rules.Rule, inputs: list[Values], r: Values
) -> tuple[list[Values], Values]:
    """As of layers with weights: terms by their sizes, sums by their condition."""
    of = reference.attention
    sizes = [np.abs(x) for x in inputs]
    largest = of.mat_mul(operator, *sizes)
    denominator = np.abs(reference.stabilize(of.mat_mul(operator, *inputs), rule.epsilon))
    t = np.abs(r) / denominator * np.maximum(1, largest / denominator)
    back = of.mat_mul_gradient(operator, *sizes, t)
    return [x * b for x, b in zip(sizes, back)], reference.per_sample(np.abs(r) + largest * t)


def linear_bounds(
    operator: g.Operator, rule: rules.Rule, a: Values, r: Values
) -> tuple[list[Values], Values]:
    """Absolute contributions times absolute messages times the condition of the denominator."""
    signed = rules.AlphaBeta() if isinstance(rule, rules.Epsilon) else rule
    split = reference.split_by_products(signed, operator, a)
    weight, bias = reference.parameters(operator, a.ndim - 1)
    above, below = reference.bias_parts(rule, bias)
    plus, minus = split.positive + above, split.negative + below
    z = reference.product(operator, a, weight) + bias
    s_plus, s_minus = (np.abs(s) for s in reference.message(rule, plus, minus, z, r))
    condition = np.ones_like(r)
    # A bias that is left out is taken from z, which was rounded with it.
    left_out = np.abs(bias) if getattr(rule, "bias", "") == "exclude" else 0.0
    if isinstance(rule, rules.Epsilon):
        denominator = reference.stabilize(plus + minus, rule.epsilon)
        condition = (plus - minus + left_out) / np.abs(denominator)
    elif isinstance(rule, rules.Gamma):
        up = np.where(z > 0, 1 + rule.gamma, 1.0) * plus
        down = np.where(z < 0, 1 + rule.gamma, 1.0) * minus
        condition = (up - down + left_out) / np.abs(reference.stabilize(up + down))
    condition = np.maximum(condition, 1)
    booked = (plus * s_plus - minus * s_minus) * condition
    reach = split.back(s_plus * condition, -s_minus * condition)
    if getattr(rule, "bias", "") == "distribute":
        shares = (above * s_plus - below * s_minus) * condition
        reach = reach + split.spread(shares / np.maximum(split.taps(), 1))
    return [reach], reference.per_sample(np.abs(r) + booked)


def away_from_the_sign_test(
    operator: g.Operator, rule: rules.Rule, a: g.Array, r: g.Array
) -> g.Array:
    """No relevance where gamma's sign test would hang on float32 rounding (exact zeros stay)."""
    if not isinstance(rule, rules.Gamma):
        return r
    split = reference.split_by_products(rule, operator, a.astype(np.float64))
    _, bias = reference.parameters(operator, a.ndim - 1)
    z = split.positive + split.negative + bias
    unsure = (z != 0) & (np.abs(z) < 1e-5 * (split.positive - split.negative + np.abs(bias)))
    return np.where(unsure, np.float32(0), r)
