"""Graphs drawn at random, with any rule on any node: fusing and fast paths must not show.

What is fused and which product is skipped hangs on a node's neighbours and their rules, so
only whole graphs can prove it right.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agreement import assert_every_node_agrees
from cases import SEEDS, numbers
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
    g.Dense: LAYER_RULES,
    g.MaxPool: [rules.WinnerTakesAll(), rules.WinnerTakesAll(), rules.Proportional(0.01)],
    g.AvgPool: [rules.Epsilon(0.01)],
    g.Add: [rules.Epsilon(0.01)],
    g.Mul: [rules.SignalTakesAll(), rules.HalfAndHalf(), rules.SignalTakesAll(1)],
    g.BatchNorm: [rules.Epsilon(0.01), rules.Pass()],
    g.Maximum: [rules.WinnerTakesAll()],
    g.LocalResponseNorm: [rules.Pass(), rules.Taylor()],
    g.Activation: [rules.Pass()],
    g.Clip: [rules.Pass()],
    g.PReLU: [rules.Pass()],
    g.Concat: [rules.Pass()],
    g.Slice: [rules.Pass()],
    g.Reshape: [rules.Pass()],
}


@st.composite
def graphs(draw: st.DrawFn) -> tuple[g.Graph, dict[str, rules.Rule]]:
    """An image network of up to a dozen nodes, of one input or two, and a rule for each."""
    rng = np.random.default_rng(draw(SEEDS))
    graph = g.Graph()
    inputs = ["input", "second"][: draw(st.integers(1, 2))]
    images = [graph.add(name, g.Input((draw(st.integers(1, 4)), 5, 6))) for name in inputs]

    def add(operator: g.Operator, *sources: str) -> str:
        images.append(graph.add(f"{type(operator).__name__}{len(graph)}", operator, sources))
        return images[-1]

    for _ in range(draw(st.integers(1, 7))):
        source = draw(st.sampled_from(images[-3:]))
        channels, height, width = graph[source].shape
        which = draw(st.sampled_from(["conv", "conv", "conv", "add", "concat", "pool", "other"]))
        if which == "conv":
            out = draw(st.integers(1, 5))
            kernel = draw(st.sampled_from([1, 3]))
            weight = numbers(rng, (out, channels, kernel, kernel)) / np.float32(kernel)
            bias = numbers(rng, (out,)) if draw(st.booleans()) else None
            made = add(g.Conv(weight, bias, padding=((kernel // 2,) * 2,) * 2), source)
            if draw(st.booleans()):
                add(g.Activation("relu"), made)
        elif which in ("add", "concat"):
            alike = [i for i in images if graph[i].shape[1:] == (height, width)]
            other = draw(st.sampled_from(alike))
            if which == "concat":
                add(g.Concat(0), source, other)
            elif graph[other].shape == graph[source].shape:
                merge = draw(st.sampled_from([g.Add(), g.Add(), g.Mul(), g.Maximum()]))
                add(merge, source, other)
        elif which == "pool" and height >= 2:
            kind = draw(st.sampled_from([g.MaxPool, g.AvgPool]))
            add(kind((2, 2), (2, 1)), source)
        elif which == "other":
            norm = g.BatchNorm(numbers(rng, (channels,)), numbers(rng, (channels,)))
            function = draw(st.sampled_from(FUNCTIONS))
            cut = g.Slice(1, 0, max(1, height - 1))
            low = draw(st.sampled_from([-0.5, 0.0, 0.25]))
            response = g.LocalResponseNorm(3, 0.1, within_channel=draw(st.booleans()))
            clip, prelu = g.Clip(low, 1.5), g.PReLU(numbers(rng, (channels,)))
            operators = [norm, response, g.Activation(function, 0.1), cut, clip, prelu]
            add(draw(st.sampled_from(operators)), source)
    if draw(st.booleans()):
        size = int(np.prod(graph[images[-1]].shape))
        flat = graph.add("flat", g.Reshape((size,)), [images[-1]])
        graph.add("dense", g.Dense(numbers(rng, (3, size)), numbers(rng, (3,))), [flat])
    assigned = {}
    for node in graph:
        if node.inputs:
            zero = draw(st.integers(0, 19)) == 0
            assigned[node.name] = (
                rules.Zero() if zero else draw(st.sampled_from(RULES[type(node.operator)]))
            )
    return graph, assigned


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
