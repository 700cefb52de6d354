"""Graphs drawn at random, with any rule on any node: fusing and fast paths must not show.

What is fused and which product is skipped hangs on a node's neighbours and their rules, so
only whole graphs can prove it right.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agreement import assert_every_node_agrees
from cases import AXES, SEEDS, numbers
from reference import forward
from relprop import Explainer, rules
from relprop import graph as g

FUNCTIONS: list[g.Function] = ["relu", "relu", "relu", "relu6", "leaky_relu", "sigmoid", "silu"]
LAYER_RULES: list[rules.Rule] = [
    rules.Epsilon(0.01),
    rules.Epsilon(0.1, "distribute"),
    rules.ZPlus(),
    rules.AlphaBeta(2, 1),
    rules.AlphaBeta(2, 1, "exclude"),
    rules.Gamma(0.25),
    rules.Gamma(0.25),
    rules.Gamma(1.0, "distribute"),
    rules.WSquare(),
    rules.Flat(),
    rules.ZBox(-100.0, 100.0),
]
RULES: dict[type, list[rules.Rule]] = {
    g.Conv: LAYER_RULES,
    g.ConvTranspose: LAYER_RULES,
    g.Dense: LAYER_RULES,
    g.MaxPool: [rules.WinnerTakesAll(), rules.WinnerTakesAll(), rules.Proportional(0.01)],
    g.AvgPool: [rules.Epsilon(0.01)],
    g.AdaptiveAvgPool: [rules.Epsilon(0.01)],
    g.Mean: [rules.Epsilon(0.01)],
    g.Add: [rules.Epsilon(0.01)],
    g.Mul: [rules.SignalTakesAll(), rules.HalfAndHalf(), rules.SignalTakesAll(1)],
    g.MatMul: [rules.SignalTakesAll(None, 0.01), rules.HalfAndHalf(0.01)],
    g.Softmax: [rules.Taylor()],
    g.LayerNorm: [rules.Epsilon(0.01)],
    g.GroupNorm: [rules.Epsilon(0.01)],
    g.BatchNorm: [rules.Epsilon(0.01), rules.Pass()],
    g.Maximum: [rules.WinnerTakesAll()],
    g.LocalResponseNorm: [rules.Pass(), rules.Taylor()],
    g.Activation: [rules.Pass()],
    g.Clip: [rules.Pass()],
    g.PReLU: [rules.Pass()],
    g.Concat: [rules.Pass()],
    g.Slice: [rules.Pass()],
    g.Pad: [rules.Pass()],
    g.Reshape: [rules.Pass()],
    g.Permute: [rules.Pass()],
}


@st.composite
def graphs(draw: st.DrawFn) -> tuple[g.Graph, dict[str, rules.Rule]]:
    """A network over space of up to a dozen nodes, of one input or two, and a rule for each."""
    rng = np.random.default_rng(draw(SEEDS))
    graph = g.Graph()
    inputs = ["input", "second"][: draw(st.integers(1, 2))]
    axes = draw(AXES)
    sizes = (5, 6, 3)[:axes]
    images = [graph.add(name, g.Input((draw(st.integers(1, 4)), *sizes))) for name in inputs]

    def add(operator: g.Operator, *sources: str) -> str:
        images.append(graph.add(f"{type(operator).__name__}{len(graph)}", operator, sources))
        return images[-1]

    for _ in range(draw(st.integers(1, 7))):
        source = draw(st.sampled_from(images[-3:]))
        channels, *sizes = graph[source].shape
        which = draw(st.sampled_from(["conv", "conv", "conv", "add", "concat", "pool", "other"]))
        if which == "conv":
            out = draw(st.integers(1, 5))
            kernel = draw(st.sampled_from([1, 3]))
            weight = numbers(rng, (out, channels, *[kernel] * axes)) / np.float32(kernel)
            bias = numbers(rng, (out,)) if draw(st.booleans()) else None
            made = add(g.Conv(weight, bias, padding=((kernel // 2,) * 2,) * axes), source)
            if draw(st.booleans()):
                add(g.Activation("relu"), made)
        elif which in ("add", "concat"):
            alike = [i for i in images if graph[i].shape[1:] == tuple(sizes)]
            other = draw(st.sampled_from(alike))
            if which == "concat":
                add(g.Concat(0), source, other)
            elif graph[other].shape == graph[source].shape:
                merge = draw(st.sampled_from([g.Add(), g.Add(), g.Mul(), g.Maximum()]))
                add(merge, source, other)
        elif which == "pool" and min(sizes) >= 2:
            kind = draw(st.sampled_from([g.MaxPool, g.AvgPool]))
            add(kind((2,) * axes, (2, 1, 1)[:axes]), source)
        elif which == "other":
            norm = g.BatchNorm(numbers(rng, (channels,)), numbers(rng, (channels,)))
            function = draw(st.sampled_from(FUNCTIONS))
            cut = g.Slice(1, 0, max(1, sizes[0] - 1))
            low = draw(st.sampled_from([-0.5, 0.0, 0.25]))
            response = g.LocalResponseNorm(3, 0.1, within_channel=axes == 2 and draw(st.booleans()))
            clip, prelu = g.Clip(low, 1.5), g.PReLU(numbers(rng, (channels,)))
            operators = [norm, response, g.Activation(function, 0.1), cut, clip, prelu]
            add(draw(st.sampled_from(operators)), source)
    if draw(st.booleans()):
        size = int(np.prod(graph[images[-1]].shape))
        flat = graph.add("flat", g.Reshape((size,)), [images[-1]])
        graph.add("dense", g.Dense(numbers(rng, (3, size)), numbers(rng, (3,))), [flat])
    return graph, draw(rules_for(graph))


@st.composite
def rules_for(draw: st.DrawFn, graph: g.Graph) -> dict[str, rules.Rule]:
    """A rule for each node, now and then none of its relevance."""
    assigned = {}
    for node in graph:
        if node.inputs:
            zero = draw(st.integers(0, 19)) == 0
            choices = [*RULES[type(node.operator)], rules.Gradient()]
            assigned[node.name] = rules.Zero() if zero else draw(st.sampled_from(choices))
    return assigned


@st.composite
def tensors(draw: st.DrawFn) -> tuple[g.Graph, dict[str, rules.Rule]]:
    """A web of operators on one to five axes, which the core stores in one order or another."""
    rng = np.random.default_rng(draw(SEEDS))
    graph = g.Graph()
    names = [
        graph.add(
            "input", g.Input(tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))))
        )
    ]
    for _ in range(draw(st.integers(1, 8))):
        source = draw(st.sampled_from(names[-3:]))
        operator = draw(any_operator(graph[source].shape, rng))
        sources = [source]
        if isinstance(operator, (g.Add, g.Mul, g.MatMul, g.Concat)):
            sources.append(draw(st.sampled_from(names)))
        try:
            names.append(graph.add(f"{type(operator).__name__}{len(graph)}", operator, sources))
        except ValueError:
            continue  # the two do not fit
        if graph[names[-1]].shape and np.prod(graph[names[-1]].shape) > 400:
            break
    return graph, draw(rules_for(graph))


@st.composite
def any_operator(draw: st.DrawFn, shape: g.Shape, rng: np.random.Generator) -> g.Operator:
    """An operator that reads a tensor of this shape."""
    axis = draw(st.integers(0, len(shape) - 1))
    first, last = draw(st.integers(0, shape[axis] - 1)), shape[axis]
    merged = (*shape[:axis], -1, *shape[axis + 2 :])
    found: list[g.Operator] = [
        g.Dense(numbers(rng, (3, shape[-1])), numbers(rng, (3,))),
        g.Activation(draw(st.sampled_from(FUNCTIONS)), 0.1),
        g.Permute(tuple(draw(st.permutations(range(len(shape)))))),
        g.Reshape(np.empty(shape).reshape(merged).shape),
        g.Slice(axis, first, last),
        g.Pad(tuple((int(a == axis), 0) for a in range(len(shape))), 0.5),
        g.Mean((axis,), keepdims=len(shape) == 1 or draw(st.booleans())),
        g.PReLU(numbers(rng, shape[:1])),
        g.Concat(axis),
        draw(st.sampled_from([g.Add(), g.Mul()])),
        g.Softmax(axis),
        g.LayerNorm(numbers(rng, shape[axis:]), numbers(rng, shape[axis:]), 0.1),
    ]
    if len(shape) >= 2:
        found.append(g.MatMul(transposed=True))
    if len(shape) < 5:
        found += [
            g.BatchNorm(numbers(rng, shape[:1]), numbers(rng, shape[:1])),
            g.GroupNorm(
                draw(st.sampled_from([1, shape[0]])),
                numbers(rng, shape[:1]),
                numbers(rng, shape[:1]),
                0.1,
            ),
            g.Reshape((*shape[:axis], 1, *shape[axis:])),
        ]
    if 2 <= len(shape) <= 4:
        kernel = tuple(draw(st.integers(1, min(2, n))) for n in shape[1:])
        found += [
            g.Conv(numbers(rng, (2, shape[0], *kernel)), numbers(rng, (2,))),
            g.ConvTranspose(numbers(rng, (shape[0], 2, *kernel))),
            draw(st.sampled_from([g.MaxPool, g.AvgPool]))(kernel, (1,) * len(kernel)),
            g.AdaptiveAvgPool(kernel),
        ]
    return draw(st.sampled_from(found))


@given(drawn=graphs(), seed=SEEDS)
@settings(max_examples=500, deadline=None)
def test_every_node_of_any_graph(drawn, seed) -> None:
    graph, assigned = drawn
    rng = np.random.default_rng(seed)
    x = {node.name: numbers(rng, (2, *node.shape)) for node in graph.inputs}
    if graph.output in x:
        return
    r = numbers(rng, (2, *graph[graph.output].shape))
    assert_every_node_agrees(Explainer(graph, rules=assigned), x, r)


@given(drawn=tensors(), seed=SEEDS)
@settings(max_examples=500, deadline=None)
def test_tensors_of_any_axes(drawn, seed) -> None:
    graph, assigned = drawn
    rng = np.random.default_rng(seed)
    x = numbers(rng, (2, *graph.input.shape))
    r = numbers(rng, (2, *graph[graph.output].shape))
    result = assert_every_node_agrees(Explainer(graph, rules=assigned), {"input": x}, r)
    values = forward(graph, x)
    for name, found in result.activations.items():
        size = np.abs(values[name]).max()
        np.testing.assert_allclose(found, values[name], rtol=1e-4, atol=1e-4 * size, err_msg=name)
