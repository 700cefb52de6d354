"""The reference itself: numbers worked out by hand, and its two forms against each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import (
    CONVOLUTIONS,
    DENSE,
    LINEAR_RULES,
    Case,
    convolutions,
    linear_rules,
    numbers,
    pools,
    torch_pools,
)
from reference import evaluate, forward, plain_product, product, propagate, relevance
from reference import parameters as weight_and_bias
from relprop import graph as g
from relprop import rules

# --- Worked by hand ----------------------------------------------------------------------------

# One neuron: inputs 1, 2, -1 with weights 2, -1, 1 and bias 1.
# Contributions 2, -2, -1; Z+ = 2 + 1 = 3, Z- = -3, z = 0 with the bias and -1 without.
A = np.array([[1.0, 2.0, -1.0]])
NEURON = g.Dense(np.float32([[2, -1, 1]]), np.float32([1]))


@pytest.mark.parametrize(
    ("rule", "expected", "bias", "stabilizer"),
    [
        (rules.Epsilon(0.5), [24, -24, -12], 12, 6),  # s = 6 / (0 + 0.5) = 12
        (rules.Epsilon(0.5, "exclude"), [-8, 8, 4], 0, 2),  # s = 6 / (-1 - 0.5) = -4
        (rules.Epsilon(0.5, "distribute"), [28, -20, -8], 0, 6),  # each gets 12 / 3 more
        (rules.ZPlus(), [4, 0, 0], 2, 0),  # s+ = 6 / 3
        (rules.ZPlus("exclude"), [6, 0, 0], 0, 0),  # s+ = 6 / 2
        (rules.ZPlus("distribute"), [14 / 3, 2 / 3, 2 / 3], 0, 0),
        (rules.AlphaBeta(2, 1), [8, -4, -2], 4, 0),  # s+ = 12 / 3, s- = -6 / -3 = 2
        (rules.Gamma(1.0), [0, 0, 0], 0, 6),  # z = 0: nothing
        (rules.WSquare(), [24 / 7, 6 / 7, 6 / 7], 6 / 7, 0),  # squares 4, 1, 1 and 1
        (rules.WSquare("exclude"), [4, 1, 1], 0, 0),
        (rules.Flat(), [2, 2, 2], 0, 0),
        # a w - l w+ - h w-: 2 + 4, -2 + 3, -1 + 2 with l = -2, h = 3; they sum to 8
        (rules.ZBox(-2.0, 3.0), [4.5, 0.75, 0.75], 0, 0),
        (rules.Gradient(), [12, -6, 6], None, None),
        (rules.Zero(), [0, 0, 0], None, None),
    ],
    ids=repr,
)
@pytest.mark.parametrize("form", ["matrix", "products"])
def test_one_neuron(rule, expected, bias, stabilizer, form) -> None:
    (r_in,), ledger = propagate(NEURON, rule, [A], np.array([[6.0]]), form=form)
    np.testing.assert_allclose(r_in, [expected], atol=1e-4)
    if bias is None:
        assert ledger == ({} if isinstance(rule, rules.Gradient) else {"zero": 6})
    else:
        assert ledger["bias"] == pytest.approx(bias, abs=1e-4)
        assert ledger["stabilizer"] == pytest.approx(stabilizer, abs=1e-4)


@pytest.mark.parametrize("form", ["matrix", "products"])
def test_gamma_favours_the_sign_of_z(form) -> None:
    # z > 0 (bias 3): weights 2 on the plus side: Z = 2 * (2 + 3) - 3 = 7, s = 6/7.
    neuron = g.Dense(NEURON.weight, np.float32([3]))
    (r_in,), ledger = propagate(neuron, rules.Gamma(1.0), [A], np.array([[6.0]]), form=form)
    np.testing.assert_allclose(r_in, [[4 * 6 / 7, -2 * 6 / 7, -1 * 6 / 7]], atol=1e-5)
    assert ledger["bias"] == pytest.approx(6 * 6 / 7, abs=1e-4)
    # z < 0 (no bias, z = -1): Z = 2 + 2 * -3 = -4, s = -1.5.
    neuron = g.Dense(NEURON.weight)
    (r_in,), _ = propagate(neuron, rules.Gamma(1.0), [A], np.array([[6.0]]), form=form)
    np.testing.assert_allclose(r_in, [[-3, 6, 3]], atol=1e-4)
    # Bias left out of Z, but not of the sign test: z = 2 > 0, Z = 2 * 2 - 3 = 1, s = 6.
    neuron = g.Dense(NEURON.weight, np.float32([3]))
    (r_in,), ledger = propagate(
        neuron, rules.Gamma(1.0, "exclude"), [A], np.array([[6.0]]), form=form
    )
    np.testing.assert_allclose(r_in, [[24, -12, -6]], atol=1e-3)
    assert ledger["bias"] == 0


def test_an_empty_part_hands_down_twice_under_alpha2_beta1() -> None:
    neuron = g.Dense(np.float32([[1, 1]]))
    (r_in,), ledger = propagate(
        neuron, rules.AlphaBeta(2, 1), [np.array([[1.0, 3.0]])], np.array([[4.0]])
    )
    np.testing.assert_allclose(r_in, [[2, 6]], atol=1e-4)
    assert ledger["stabilizer"] == pytest.approx(-4, abs=1e-4)


def test_other_operators() -> None:
    r = np.array([[6.0, 3.0]])
    x, y = np.array([[1.0, 4.0]]), np.array([[2.0, -1.0]])
    shares, _ = propagate(g.Add(), rules.Epsilon(1e-9), [x, y], r)
    np.testing.assert_allclose(shares, [[[2, 4]], [[4, -1]]])
    shares, _ = propagate(g.Mul(), rules.SignalTakesAll(), [x, y], r, gate=1)
    np.testing.assert_allclose(shares, [[[6, 3]], [[0, 0]]])
    shares, _ = propagate(g.Mul(), rules.SignalTakesAll(), [x, y], r)
    np.testing.assert_allclose(shares, [[[3, 1.5]], [[3, 1.5]]])
    (share,), ledger = propagate(g.Pad(((1, 0),), 7.0), rules.Pass(), [x[:, :1]], r)
    assert share == 3
    assert ledger["constants"] == 6
    (share,), _ = propagate(g.Slice(0, 1, 2), rules.Pass(), [x], r[:, :1])
    np.testing.assert_allclose(share, [[0, 6]])
    image = np.array([[[[1.0, 2.0], [2.0, 0.0]]]])
    (share,), _ = propagate(
        g.MaxPool((2, 2), (2, 2)), rules.WinnerTakesAll(), [image], np.full((1, 1, 1, 1), 5.0)
    )
    np.testing.assert_allclose(share, [[[[0, 5], [0, 0]]]])  # the first of the two twos
    (share,), _ = propagate(
        g.MaxPool((2, 2), (2, 2)), rules.Proportional(), [image], np.full((1, 1, 1, 1), 5.0)
    )
    np.testing.assert_allclose(share, [[[[1, 2], [2, 0]]]], atol=1e-5)


def test_response_norm_by_taylor() -> None:
    # Two channels of value 1 and 2, window of 3, c = 3 / 3 = 1, b = 1, S = 5 for both:
    # m_00 = 1 / (1 + 1) = 1/2, m_01 = -2 * 1 * 4 / 36 = -2/9; m_11 = 2 / (1 + 4) = 2/5,
    # m_10 = -2 * 2 * 1 / 36 = -1/9. Shares of R = (5, 13): 5 / (5/18) = 18, 13 / (13/45) = 45.
    x = np.array([1.0, 2.0]).reshape(1, 2, 1, 1)
    operator = g.LocalResponseNorm(3, alpha=3.0, beta=1.0, k=1.0)
    (share,), ledger = propagate(
        operator, rules.Taylor(), [x], np.array([5.0, 13.0]).reshape(x.shape)
    )
    np.testing.assert_allclose(share.ravel(), [18 / 2 - 45 / 9, 45 * 2 / 5 - 18 * 2 / 9], rtol=1e-4)
    assert ledger["stabilizer"] == pytest.approx(0, abs=1e-3)


# --- The two forms, and torch ------------------------------------------------------------------


def assert_forms_agree(
    operator: g.Operator, shape: g.Shape, rule: rules.Rule, seed: int = 0
) -> None:
    rng = np.random.default_rng(seed)
    x = numbers(rng, (2, *shape)).astype(np.float64)
    r = numbers(rng, (2, *operator.infer_shape(shape))).astype(np.float64)
    (matrix,), ledger = propagate(operator, rule, [x], r, form="matrix")
    (products,), same = propagate(operator, rule, [x], r, form="products")
    np.testing.assert_allclose(
        products, matrix, rtol=1e-9, atol=1e-9 * np.abs(matrix).max(initial=0)
    )
    for category, values in ledger.items():
        np.testing.assert_allclose(same[category], values, rtol=1e-6, atol=1e-9 * np.abs(r).sum())
    if isinstance(rule, rules.UNCONSERVED):
        return  # is not conserved
    total = matrix.reshape(2, -1).sum(1) + sum(ledger.values())
    np.testing.assert_allclose(total, r.reshape(2, -1).sum(1), atol=1e-6 * np.abs(matrix).sum())


@pytest.mark.parametrize("rule", LINEAR_RULES, ids=repr)
@pytest.mark.parametrize("case", [*CONVOLUTIONS[11:14], DENSE[0]], ids=str)
def test_products_are_the_matrix(case: Case, rule: rules.Rule) -> None:
    assert_forms_agree(case.layer(np.random.default_rng(1)), case.shape, rule)


@given(convolutions(), st.data())
@settings(max_examples=40, deadline=None)
def test_products_are_the_matrix_on_any_convolution(layer, data) -> None:
    operator, shape = layer
    rule = data.draw(linear_rules(shape[0]))
    if isinstance(rule, rules.Gamma):
        rule = rules.Gamma(0.25)  # its sign test may fall either way on a sum that cancels
        operator = g.Conv(
            operator.weight,
            None,
            operator.stride,
            operator.padding,
            operator.dilation,
            operator.groups,
        )
    elif isinstance(rule, rules.Epsilon):
        rule = rules.Epsilon(0.5, rule.bias)
    assert_forms_agree(operator, shape, rule)


@given(pools("average"))
@settings(max_examples=30, deadline=None)
def test_products_are_the_matrix_on_average_pools(layer) -> None:
    assert_forms_agree(*layer, rules.Epsilon(0.5))


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_plain_product_is_the_fast_one(case: Case) -> None:
    operator = case.layer(np.random.default_rng(2))
    x = np.random.default_rng(3).standard_normal((2, *case.shape))
    weight, _ = weight_and_bias(operator, len(case.shape))
    np.testing.assert_allclose(
        plain_product(operator, x, weight), product(operator, x, weight), atol=1e-12
    )


@given(pools("max") | pools("average"))
@settings(max_examples=60, deadline=None)
def test_pools_are_those_of_torch(layer) -> None:
    operator, shape = layer
    x = np.random.default_rng(0).standard_normal((2, *shape))
    if not torch_pools(operator, shape):
        return
    axes, pads = len(operator.kernel), tuple(before for before, _ in operator.padding)
    where = (torch.from_numpy(x), operator.kernel, operator.stride, pads)
    if isinstance(operator, g.MaxPool):
        pool = getattr(torch.nn.functional, f"max_pool{axes}d")
        expected = pool(*where, operator.dilation, operator.ceil_mode)
    else:
        pool = getattr(torch.nn.functional, f"avg_pool{axes}d")
        rest = (operator.ceil_mode, operator.count_include_pad)
        # torch has no divisor of the user's for signals
        given = () if axes == 1 else (operator.divisor,)
        if axes == 1 and operator.divisor is not None:
            return
        expected = pool(*where, *rest, *given)
    np.testing.assert_allclose(evaluate(operator, [x]), expected.numpy(), atol=1e-12)


@pytest.mark.parametrize("size", [1, 3, 4, 5, 9])
def test_response_norm_is_that_of_torch(size: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, 6, 3, 4))
    operator = g.LocalResponseNorm(size, 0.7, 0.6, 1.5)
    expected = torch.nn.functional.local_response_norm(torch.from_numpy(x), size, 0.7, 0.6, 1.5)
    np.testing.assert_allclose(evaluate(operator, [x]), expected.numpy(), atol=1e-12)


@pytest.mark.parametrize("output", [(1, 1), (3, 4), (7, 7), (9, 5), (1,), (5,), (3, 4, 2)])
def test_adaptive_average_is_that_of_torch(output: g.Sizes) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 7, 9, 4)[: 2 + len(output)])
    pool = getattr(torch.nn.functional, f"adaptive_avg_pool{len(output)}d")
    expected = pool(torch.from_numpy(x), output)
    np.testing.assert_allclose(
        evaluate(g.AdaptiveAvgPool(output), [x]), expected.numpy(), atol=1e-12
    )


# --- Whole graphs ------------------------------------------------------------------------------


def captum_network(first: float) -> g.Graph:
    """The net of Captum's own tests: Linear(3, 3) of twos, ReLU, Linear(3, 1) of threes."""
    weight = np.full((3, 3), 2, np.float32)
    weight[0, 0] = first
    graph = g.Graph()
    graph.add("input", g.Input((3,)))
    graph.add("hidden", g.Dense(weight), ["input"])
    graph.add("relu", g.Activation("relu"), ["hidden"])
    graph.add("output", g.Dense(np.full((1, 3), 3, np.float32)), ["relu"])
    return graph


@pytest.mark.parametrize(
    ("first", "rule", "expected"),
    [(2, rules.Epsilon(1e-9), [18, 36, 54]), (-2, rules.ZPlus(), [12, 33.6, 50.4])],
)
def test_captum_numbers(first, rule, expected) -> None:
    graph = captum_network(first)
    x = np.array([[1.0, 2.0, 3.0]])
    scores = forward(graph, x)["output"]
    assigned = {"hidden": rule, "relu": rules.Pass(), "output": rule}
    found, _ = relevance(graph, assigned, x, scores)
    np.testing.assert_allclose(found["input"], [expected], rtol=1e-6)


def test_a_float32_runs_decisions_are_replayed() -> None:
    graph = g.Graph()
    graph.add("input", g.Input((1, 1, 2)))
    graph.add("relu", g.Activation("relu"), ["input"])
    graph.add("pool", g.MaxPool((1, 2), (1, 2)), ["relu"])
    x = np.array([1.0, 1.0 + 1e-12]).reshape(1, 1, 1, 2)
    gates = {"relu": np.float32([1, 1]).reshape(x.shape), "pool": np.float32(1)}
    assigned = {"relu": rules.Pass(), "pool": rules.WinnerTakesAll()}
    one = np.ones((1, 1, 1, 1))
    assert relevance(graph, assigned, x, one)[0]["input"].ravel().tolist() == [0, 1]
    assert relevance(graph, assigned, x, one, gates)[0]["input"].ravel().tolist() == [1, 0]


def test_batch_norm_is_per_channel() -> None:
    operator = g.BatchNorm(np.float32([2, 3]), np.float32([1, -1]))
    x = np.ones((2, 2, 3, 4))
    np.testing.assert_array_equal(evaluate(operator, [x])[1, :, 0, 0], [3, 2])
    assert_forms_agree(operator, (2, 3, 4), rules.Epsilon(0.5, "distribute"))
