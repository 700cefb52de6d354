"""Dense layers in the core against the matrix form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agreement import assert_agrees, away_from_the_sign_test
from cases import (
    BATCHES,
    DENSE,
    KINDS,
    LINEAR_RULES,
    SEEDS,
    Case,
    dense_layers,
    linear_rules,
    numbers,
)
from relprop import rules


@pytest.mark.parametrize("after_relu", [False, True], ids=["any signs", "after relu"])
@pytest.mark.parametrize("case", DENSE, ids=str)
def test_listed_cases_under_every_rule(case: Case, after_relu: bool) -> None:
    rng = np.random.default_rng(len(case.name))
    operator = case.layer(rng)
    x = numbers(rng, (2, *case.shape))
    r = numbers(rng, (2, *operator.infer_shape(case.shape)))
    for rule in LINEAR_RULES:
        if after_relu and isinstance(rule, rules.ZBox):
            continue  # a box belongs to the network's input
        held = away_from_the_sign_test(operator, rule, np.maximum(x, 0) if after_relu else x, r)
        assert_agrees(operator, [x], rule, held, after_relu=after_relu, form="products")


@given(
    layer=dense_layers(),
    data=st.data(),
    n=BATCHES,
    seed=SEEDS,
    kind=KINDS,
    after_relu=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_any_dense_layer(layer, data, n, seed, kind, after_relu) -> None:
    operator, shape = layer
    rule = data.draw(linear_rules(1))
    rng = np.random.default_rng(seed)
    x = numbers(rng, (n, *shape), kind)
    r = numbers(rng, (n, *operator.infer_shape(shape)), data.draw(KINDS))
    after_relu = after_relu and not isinstance(rule, rules.ZBox)
    held = away_from_the_sign_test(operator, rule, np.maximum(x, 0) if after_relu else x, r)
    assert_agrees(operator, [x], rule, held, after_relu=after_relu)
