"""Sums, products, maxima and concatenations of branches in the core."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agreement import assert_agrees
from cases import BATCHES, KINDS, SEEDS, numbers
from relprop import Explainer, rules
from relprop import graph as g


@st.composite
def broadcast_shapes(draw: st.DrawFn, branches: int) -> list[g.Shape]:
    """Shapes that numpy's rules of broadcasting bring together."""
    full = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    shapes = []
    for _ in range(branches):
        shape = [draw(st.sampled_from([n, n, 1])) for n in full]
        shapes.append(
            tuple(shape[draw(st.integers(0, len(shape) - 1)) if draw(st.booleans()) else 0 :])
        )
    return shapes


@given(data=st.data(), branches=st.integers(2, 4), n=BATCHES, seed=SEEDS, kind=KINDS)
@settings(max_examples=80, deadline=None)
def test_any_sum(data, branches, n, seed, kind) -> None:
    shapes = data.draw(broadcast_shapes(branches))
    rng = np.random.default_rng(seed)
    xs = [numbers(rng, (n, *shape), kind) for shape in shapes]
    rule = rules.Epsilon(data.draw(st.sampled_from([1e-6, 0.1])))
    assert_agrees(g.Add(), xs, rule, numbers(rng, (n, *g.Add().infer_shape(*shapes))))


@given(data=st.data(), n=BATCHES, seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_any_product(data, n, seed) -> None:
    shapes = data.draw(broadcast_shapes(2))
    rng = np.random.default_rng(seed)
    xs = [numbers(rng, (n, *shape)) for shape in shapes]
    rule = data.draw(
        st.sampled_from(
            [
                rules.SignalTakesAll(),
                rules.SignalTakesAll(0),
                rules.SignalTakesAll(1),
                rules.HalfAndHalf(),
            ]
        )
    )
    assert_agrees(g.Mul(), xs, rule, numbers(rng, (n, *g.Mul().infer_shape(*shapes))))


@given(data=st.data(), branches=st.integers(2, 4), n=BATCHES, seed=SEEDS, kind=KINDS)
@settings(max_examples=80, deadline=None)
def test_any_maximum(data, branches, n, seed, kind) -> None:
    shapes = data.draw(broadcast_shapes(branches))
    rng = np.random.default_rng(seed)
    xs = [numbers(rng, (n, *shape), kind) for shape in shapes]
    r = numbers(rng, (n, *g.Maximum().infer_shape(*shapes)))
    for rule in (rules.WinnerTakesAll(), rules.Zero()):
        assert_agrees(g.Maximum(), xs, rule, r)


@given(data=st.data(), n=BATCHES, seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_any_concatenation(data, n, seed) -> None:
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    axis = data.draw(st.integers(0, len(shape) - 1))
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=2, max_size=4))
    shapes = [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]
    rng = np.random.default_rng(seed)
    xs = [numbers(rng, (n, *s)) for s in shapes]
    operator = g.Concat(axis)
    assert_agrees(operator, xs, rules.Pass(), numbers(rng, (n, *operator.infer_shape(*shapes))))


GATES = [g.Activation("sigmoid"), g.Activation("hard_sigmoid"), g.Softmax(0)]


@pytest.mark.parametrize("gate_first", [False, True])
@pytest.mark.parametrize("through", [None, g.Reshape((2, 1, 1)), g.Identity()])
@pytest.mark.parametrize("gate", GATES)
def test_the_gate_is_the_branch_that_ends_in_a_sigmoid(gate, gate_first: bool, through) -> None:
    graph = g.Graph()
    graph.add("input", g.Input((2, 1, 1)))
    graph.add("signal", g.Activation("tanh"), ["input"])
    gate = graph.add("gate", gate, ["input"])
    if through is not None:
        gate = graph.add("through", through, [gate])
    graph.add("mul", g.Mul(), [gate, "signal"] if gate_first else ["signal", gate])
    r = np.float32([3, -2]).reshape(1, 2, 1, 1)
    result = Explainer(graph)(np.ones((1, 2, 1, 1), np.float32), r, intermediate=["signal", "gate"])
    np.testing.assert_array_equal(result.intermediate["signal"].ravel(), r.ravel())
    np.testing.assert_array_equal(result.intermediate["gate"].ravel(), [0, 0])


@pytest.mark.parametrize("signal", [g.Activation("tanh"), *GATES])
@pytest.mark.parametrize("swapped", [False, True])
def test_what_is_divided_by_is_a_gate_even_of_gates(signal, swapped: bool) -> None:
    graph = g.Graph()
    graph.add("input", g.Input((2, 1, 1)))
    graph.add("signal", signal, ["input"])
    graph.add("divisor", g.Activation("power", -0.5), ["input"])
    graph.add("mul", g.Mul(), ["divisor", "signal"] if swapped else ["signal", "divisor"])
    r = np.float32([3, -2]).reshape(1, 2, 1, 1)
    result = Explainer(graph)(
        np.ones((1, 2, 1, 1), np.float32), r, intermediate=["signal", "divisor"]
    )
    np.testing.assert_array_equal(result.intermediate["signal"].ravel(), r.ravel())
    np.testing.assert_array_equal(result.intermediate["divisor"].ravel(), [0, 0])


@pytest.mark.parametrize("factor", [g.Activation("power", 0.5), g.Activation("exp")])
def test_lengths_and_exponentials_are_no_gates(factor) -> None:
    graph = g.Graph()
    graph.add("input", g.Input((2,)))
    graph.add("factor", factor, ["input"])
    graph.add("mul", g.Mul(), ["input", "factor"])
    result = Explainer(graph)(
        np.ones((1, 2), np.float32), np.float32([[4, 2]]), intermediate=["factor"]
    )
    np.testing.assert_allclose(result.intermediate["factor"], [[2, 1]], rtol=1e-5)


def test_two_gates_share() -> None:
    graph = g.Graph()
    graph.add("input", g.Input((2,)))
    graph.add("a", g.Activation("sigmoid"), ["input"])
    graph.add("b", g.Activation("sigmoid"), ["input"])
    graph.add("mul", g.Mul(), ["a", "b"])
    result = Explainer(graph)(
        np.ones((1, 2), np.float32), np.float32([[3, -2]]), intermediate=["a", "b"]
    )
    np.testing.assert_array_equal(result.intermediate["a"], [[1.5, -1]])
    np.testing.assert_array_equal(result.intermediate["b"], [[1.5, -1]])


@pytest.mark.parametrize("first", [False, True])
def test_a_constant_summand_takes_its_share_into_the_ledger(first: bool) -> None:
    graph = g.Graph()
    graph.add("input", g.Input((2,)))
    graph.add("constant", g.Constant(np.float32([3, -1])))
    graph.add("add", g.Add(), ["constant", "input"] if first else ["input", "constant"])
    result = Explainer(graph, rules={"add": rules.Epsilon(1e-9)})(
        np.float32([[1, 2]]), np.float32([[4, 5]])
    )
    np.testing.assert_allclose(result.relevance, [[1, 10]], rtol=1e-6)  # 4 * 1/4, 5 * 2/1
    np.testing.assert_allclose(result.ledger.constants.sum(axis=1), [3 - 5], rtol=1e-6)


@pytest.mark.parametrize("first", [False, True])
def test_a_constant_factor_passes(first: bool) -> None:
    graph = g.Graph()
    graph.add("input", g.Input((2,)))
    graph.add("constant", g.Constant(np.float32([3])))
    graph.add("mul", g.Mul(), ["constant", "input"] if first else ["input", "constant"])
    result = Explainer(graph)(np.float32([[1, 2]]), np.float32([[4, 5]]))
    np.testing.assert_allclose(result.relevance, [[4, 5]])


def test_one_branch_read_twice() -> None:
    graph = g.Graph()
    graph.add("input", g.Input((3,)))
    graph.add("add", g.Add(), ["input", "input"])
    result = Explainer(graph)(np.float32([[1, 2, 3]]), np.float32([[4, 5, 6]]))
    np.testing.assert_allclose(result.relevance, [[4, 5, 6]], rtol=1e-5)
