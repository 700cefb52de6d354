"""Matrix products of two branches and softmax between layers, in the core."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import relprop
from agreement import assert_agrees
from cases import BATCHES, KINDS, SEEDS, numbers
from relprop import graph as g
from relprop import rules

PRODUCT_RULES: list[rules.Rule] = [
    rules.HalfAndHalf(),
    rules.HalfAndHalf(0.1),
    rules.SignalTakesAll(),
    rules.SignalTakesAll(0, 0.1),
    rules.SignalTakesAll(1),
    rules.Gradient(),
    rules.Zero(),
]
SOFTMAX_RULES = [rules.Taylor(), rules.Gradient(), rules.Zero()]
PRODUCTS = {
    "one by one": ((1, 1), (1, 1), False),
    "rows": ((5, 7), (7, 3), False),
    "queries by keys": ((12, 9, 8), (12, 9, 8), True),
    "weights by values": ((12, 9, 9), (12, 9, 8), False),
    "heads of two axes": ((2, 3, 4, 5), (2, 3, 6, 5), True),
    "five axes": ((2, 1, 2, 4, 3), (2, 1, 2, 3, 2), False),
    "a panel and more": ((2, 40, 33), (2, 33, 70), False),
    "long sums": ((3, 300), (5, 300), True),
    "many rows": ((1, 400, 6), (1, 6, 5), False),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_listed_products(name: str) -> None:
    rng = np.random.default_rng(len(name))
    left, right, transposed = PRODUCTS[name]
    operator = g.MatMul(transposed)
    xs = [numbers(rng, (2, *shape)) for shape in (left, right)]
    r = numbers(rng, (2, *operator.infer_shape(left, right)))
    for rule in PRODUCT_RULES:
        assert_agrees(operator, xs, rule, r)


@given(
    outer=st.lists(st.integers(1, 3), max_size=3),
    sides=st.tuples(*[st.integers(1, 40)] * 3),
    transposed=st.booleans(),
    n=BATCHES,
    seed=SEEDS,
    kind=KINDS,
    rule=st.sampled_from(PRODUCT_RULES),
)
@settings(max_examples=60, deadline=None)
def test_any_product(outer, sides, transposed, n, seed, kind, rule) -> None:
    rng = np.random.default_rng(seed)
    rows, depth, columns = sides
    second = (columns, depth) if transposed else (depth, columns)
    xs = [numbers(rng, (n, *outer, *shape), kind) for shape in ((rows, depth), second)]
    assert_agrees(g.MatMul(transposed), xs, rule, numbers(rng, (n, *outer, rows, columns)))


@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=5) | st.tuples(st.integers(1, 300)),
    n=BATCHES,
    seed=SEEDS,
    kind=KINDS,
    size=st.sampled_from([1.0, 10.0]),
    rule=st.sampled_from(SOFTMAX_RULES),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_any_softmax(shape, n, seed, kind, size, rule, data) -> None:
    rng = np.random.default_rng(seed)
    axis = data.draw(st.integers(0, len(shape) - 1))
    x = np.float32(size) * numbers(rng, (n, *shape), kind)
    assert_agrees(g.Softmax(axis), [x], rule, numbers(rng, (n, *shape)))


def heads(rng: np.random.Generator, masked: bool) -> g.Graph:
    """Self-attention of two heads, whose values come by a dense layer."""
    graph = g.Graph()
    graph.add("tokens", g.Input((4, 6)))
    for name in ("queries", "keys", "values"):
        graph.add(f"{name} made", g.Dense(numbers(rng, (6, 6))), ["tokens"])
        graph.add(f"{name} cut", g.Reshape((4, 2, 3)), [f"{name} made"])
        graph.add(name, g.Permute((1, 0, 2)), [f"{name} cut"])
    graph.add("scores", g.MatMul(transposed=True), ["queries", "keys"])
    last = "scores"
    if masked:
        mask = np.triu(np.full((4, 4), -1e30, np.float32), 1)
        graph.add("mask", g.Constant(np.broadcast_to(mask, (2, 4, 4)).copy()))
        last = graph.add("masked", g.Add(), ["scores", "mask"])
    graph.add("weights", g.Softmax(2), [last])
    graph.add("mixed", g.MatMul(), ["weights", "values"])
    graph.add("turned", g.Permute((1, 0, 2)), ["mixed"])
    graph.add("joined", g.Reshape((24,)), ["turned"])
    graph.add("out", g.Dense(numbers(rng, (3, 24))), ["joined"])
    return graph


@pytest.mark.parametrize("masked", [False, True])
def test_values_take_all_under_presets(masked: bool) -> None:
    """Attention weights are gates: they take no relevance, and nothing is lost."""
    rng = np.random.default_rng(3)
    explainer = relprop.Explainer(heads(rng, masked), "epsilon", epsilon=1e-9)
    result = explainer(numbers(rng, (5, 4, 6)), 1, intermediate=["weights", "values"])
    assert not result.intermediate["weights"].any()
    sums = result.intermediate["values"].reshape(5, -1).sum(1)
    np.testing.assert_allclose(sums, result.scores[:, 1], rtol=1e-4)
    np.testing.assert_allclose(result.relevance.reshape(5, -1).sum(1), sums, rtol=1e-3)


@pytest.mark.parametrize("masked", [False, True])
def test_halves_by_taylor_are_accounted_for(masked: bool) -> None:
    """AttnLRP conserves but for what the ledger books; masked places are finite and get none."""
    rng = np.random.default_rng(4)
    graph = heads(rng, masked)
    explainer = relprop.Explainer(graph, "epsilon", rules={g.MatMul: rules.HalfAndHalf()})
    result = explainer(numbers(rng, (5, 4, 6)), 1, intermediate=["weights", "scores"])
    halves = result.intermediate["weights"].reshape(5, -1).sum(1)
    np.testing.assert_allclose(halves, result.scores[:, 1] / 2, rtol=1e-4)
    assert (np.abs(result.ledger.closure_error) <= 1e-6).all()
    at = result.ledger.nodes.index("weights")
    assert np.abs(result.ledger.bias[:, at]).min() > 0
    if masked:
        above = np.triu(np.ones((4, 4), bool), 1)
        assert not result.intermediate["scores"][:, :, above].any()


def test_factors_that_do_not_fit() -> None:
    graph = g.Graph()
    graph.add("a", g.Input((2, 3)))
    graph.add("b", g.Input((4, 3)))
    with pytest.raises(ValueError, match=r"shapes \(2, 3\) and \(4, 3\) do not fit"):
        graph.add("product", g.MatMul(), ["a", "b"])
