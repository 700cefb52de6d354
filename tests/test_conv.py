"""Convolution in the core: every geometry, rule and bias mode against the matrix form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agreement import (
    assert_agrees,
    assert_case_agrees,
    assert_layer_agrees,
    away_from_the_sign_test,
    build,
)
from cases import (
    BATCHES,
    CONVOLUTIONS,
    KINDS,
    LINEAR_RULES,
    SEEDS,
    Case,
    convolutions,
    linear_rules,
    numbers,
)
from reference import propagate
from relprop import Explainer, rules
from relprop import graph as g


@pytest.mark.parametrize("after_relu", [False, True], ids=["any signs", "after relu"])
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_listed_cases_under_every_rule(case: Case, after_relu: bool) -> None:
    assert_case_agrees(case, after_relu)


@given(
    layer=convolutions(),
    data=st.data(),
    n=BATCHES,
    seed=SEEDS,
    kind=KINDS,
    after_relu=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_any_convolution(layer, data, n, seed, kind, after_relu) -> None:
    operator, shape = layer
    rule, kinds = data.draw(linear_rules(shape[0])), (kind, data.draw(KINDS))
    rng = np.random.default_rng(seed)
    assert_layer_agrees(operator, shape, rule, rng, n=n, kinds=kinds, after_relu=after_relu)


@pytest.mark.parametrize("rule", LINEAR_RULES, ids=repr)
def test_a_window_of_padding_alone_hands_nothing_down(rule: rules.Rule) -> None:
    operator = g.Conv(
        np.ones((2, 1, 1, 1), np.float32), np.float32([1, -1]), padding=((2, 1), (0, 3))
    )
    x = np.full((1, 1, 2, 2), 0.5, np.float32)
    r = np.arange(1, 2 * 5 * 5 + 1, dtype=np.float32).reshape(1, 2, 5, 5)
    assert_agrees(operator, [x], rule, r)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_padding_of_any_size(axes: int) -> None:
    """A border that no memory would hold, which only windows of padding alone look at."""
    far = 2**30 - 4
    operator = g.Conv(
        np.ones((2, 3, *[3] * axes), np.float32),
        stride=(far,) * axes,
        padding=((far, far),) * axes,
    )
    found = Explainer(build(operator, [(3, *[5] * axes)]), rules={"layer": rules.Epsilon()})
    x = np.ones((1, 3, *[5] * axes), np.float32)
    r = np.ones((1, 2, *[3] * axes), np.float32)
    np.testing.assert_allclose(found(x, r).relevance.sum(), 2.0, rtol=1e-5)


@pytest.mark.parametrize("rule", LINEAR_RULES, ids=repr)
def test_sums_that_vanish(rule: rules.Rule) -> None:
    """Z, Z+ and Z- that are exactly zero, with relevance on them."""
    operator = g.Conv(np.float32([[[[1]], [[-1]]], [[[1]], [[1]]], [[[-1]], [[-1]]]]))
    x = np.float32([[1, 1], [0, 0], [1, -1]]).reshape(3, 2, 1, 1)
    r = np.float32([[1, 2, 3]] * 3).reshape(3, 3, 1, 1)
    assert_agrees(operator, [x], rule, r)


@pytest.mark.parametrize("channels", [3, 24], ids=["merged rows", "rows"])
@pytest.mark.parametrize(
    "rule",
    [
        rules.Epsilon(1e-9, "exclude"),
        rules.Gamma(0.25, "exclude"),
        rules.ZPlus("exclude"),
        rules.AlphaBeta(2, 1, "exclude"),
    ],
    ids=repr,
)
def test_a_bias_that_is_left_out_takes_nothing_along(rule: rules.Rule, channels: int) -> None:
    rng = np.random.default_rng(8)
    weight, x = np.abs(numbers(rng, (40, channels, 3, 3))), numbers(rng, (2, channels, 9, 9))
    weight[:, channels // 2] *= -0.1
    bias = np.float32(1e6) * numbers(rng, (40,))
    layer = g.Conv(weight, bias, padding=((1, 1),) * 2)
    r = np.abs(numbers(rng, (2, 40, 9, 9)))
    assert_agrees(layer, [np.abs(x)], rule, r)
    explainer = Explainer(build(layer, [x.shape[1:]]), rules={"layer": rule})
    result = explainer(np.abs(x), r)
    assert result.ledger is not None
    assert (result.ledger.closure_error <= 1e-6).all()
    np.testing.assert_allclose(result.relevance.sum((1, 2, 3)), r.sum((1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("rule", LINEAR_RULES, ids=repr)
def test_empty_windows_of_a_sparse_map(rule: rules.Rule) -> None:
    """Whole windows that a ReLU has emptied."""
    rng = np.random.default_rng(5)
    x = numbers(rng, (2, 8, 10, 10), "sparse")
    x[:, :, 2:8, 3:9] = -1
    operator = g.Conv(numbers(rng, (16, 8, 3, 3)), numbers(rng, (16,)), padding=((1, 1), (1, 1)))
    r = numbers(rng, (2, 16, 10, 10))
    if isinstance(rule, rules.ZBox):
        rule = rules.ZBox(0.0, 8.0)
        assert_agrees(operator, [np.maximum(x, 0)], rule, r, form="products")
    else:
        held = away_from_the_sign_test(operator, rule, np.maximum(x, 0), r)
        assert_agrees(operator, [x], rule, held, after_relu=True, form="products")


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_the_stated_tolerance(case: Case) -> None:
    """1e-5 of the relevance itself for every rule whose denominators do not cancel."""
    rng = np.random.default_rng(11)
    operator = case.layer(rng)
    x = numbers(rng, (2, *case.shape))
    r = numbers(rng, (2, *operator.infer_shape(case.shape)))
    for rule in (
        rules.ZPlus(),
        rules.AlphaBeta(2, 1),
        rules.Gamma(0.25),
        rules.WSquare(),
        rules.Flat(),
        rules.ZBox(-6.0, 6.0),
    ):
        found = Explainer(build(operator, [case.shape]), rules={"layer": rule})(x, r).relevance
        (truth,), _ = propagate(
            operator, rule, [x.astype(np.float64)], r.astype(np.float64), form="products"
        )
        assert np.linalg.norm(found - truth) <= 1e-5 * np.linalg.norm(truth), rule
